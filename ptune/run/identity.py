"""What a run is: the name of its directory, with a digest of all that its numbers follow from."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from ptune.backbone.pretrained import local
from ptune.data import cache
from ptune.data.base import TaskData
from ptune.run.resolved import Options, decisive, precision
from ptune.tuning.transfer import placeless

HASH, FINGERPRINT = 8, 16
"""Hexadecimal digits of a run's hash and of its data's fingerprint."""
SEED = "seed_everything"


@final
@dataclass(frozen=True)
class Identity:
    """One run among all others: two runs with the same identity have the same numbers, wherever they run."""

    task: str
    method: str
    backbone: str
    """Its short name: without the folder that it lies in, and with a hub id's or package's slashes as hyphens."""
    seed: int
    hash: str
    """Of the options that decide what is computed, of the rows and of the weights in a local folder."""
    group_hash: str
    """The same without the seed."""
    data: str
    """Fingerprint of the rows of all splits, as they are trained on or evaluated."""

    def changed(self, changes: Sequence[dict[str, Any]]) -> "Identity":
        """The run whose options were changed on its way: it is not the one that had them from the start.

        Args:
            changes: those of the result, in their order. It stays what it is where they but name the checkpoint of
                another run that it has gone on from.
        """
        made = [[change["step"], decisive(change["options"])] for change in changes]
        made = [[step, options] for step, options in made if options]
        return replace(self, hash=digest([self.hash, *made])[:HASH]) if made else self

    @property
    def name(self) -> str:
        """<task>/<method>/<backbone>-s<seed>-<hash>: below `runs/`, where the run lies by default."""
        return f"{self.task}/{self.method}/{self.backbone}-s{self.seed}-{self.hash}"

    @property
    def tags(self) -> list[str]:
        """What it is found by among other runs; W&B takes tags of up to 64 characters."""
        return [tag[:64] for tag in (self.task, self.method, self.backbone)]

    @property
    def group(self) -> str:
        """What runs share that differ in nothing but the seed."""
        return f"{self.task}/{self.method}/{self.backbone}-{self.group_hash}"


def identify(options: Options, data: TaskData) -> Identity:
    """The identity of a run.

    Paths say where something lies, not what it is, so what lies there takes their place: the rows, which are read for
    it, the files of a backbone of the user's, and the tensors of a prompt that it starts from. An option that is null
    counts as one that is not there, so that a later version, which has more of them, gives the same hash.

    Args:
        options: the options of its resolved configuration.
        data: the data module.
    """
    data.setup()
    fingerprint = digest(data.fingerprints())[:FINGERPRINT]
    init = options.get("model.init")
    name = options["model.backbone"]
    own = local(name)
    parts = decisive(options) | {
        "data.path": fingerprint,
        "model.backbone": contents(own) if own else name,
        "model.init": placeless(init) if isinstance(init, str) else init,
        "trainer.precision": precision(options),
    }
    parts = {option: value for option, value in parts.items() if value is not None}
    unseeded = {option: value for option, value in parts.items() if option != SEED}
    return Identity(
        data.task.name,
        options["model"],
        short(own.resolve().name if own else name.removeprefix("package:")),
        options[SEED],
        digest(parts)[:HASH],
        digest(unseeded)[:HASH],
        fingerprint,
    )


def digest(value: Any) -> str:
    """SHA-256 of a value of JSON's types, in any order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def contents(place: Path) -> dict[str, str]:
    """Digests of what a backbone is loaded from: its GGUF file, or weights, configuration and that of its pooling."""
    if place.is_file():
        return {place.suffix: cache.content(place)}
    files = sorted([*place.glob("*.safetensors"), *place.glob("**/config.json")])
    return {file.relative_to(place).as_posix(): cache.content(file) for file in files}


def short(name: str) -> str:
    """A name as a part of a path and of a W&B name, of its last 100 bytes."""
    return re.sub(r"[^\w.-]+", "-", name).encode()[-100:].decode(errors="ignore").strip("-.")
