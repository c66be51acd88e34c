"""Prompt transfer (Vu et al. 2022, *SPoT*, arXiv:2110.07904): training starts from a prompt of another task."""

import re
from abc import ABC
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ptune.errors import InputError, nearest
from ptune.tuning import saving
from ptune.tuning.companions import Accompanied

DIGEST = 16
"""Hexadecimal digits of a prompt's digest."""
PATTERN = re.compile(rf"(run|run\+head):(.*?)(?:#([0-9a-f]{{{DIGEST}}}))?", re.DOTALL)
"""`run:DIR`, or `run+head:DIR`; in a resolved configuration `#` and the digest of its prompt stand behind it."""
HEAD = ("head", "labels", "template", "words", "pooling")
"""What of saved metadata a head depends on."""


@final
@dataclass(frozen=True)
class Source:
    """A trained prompt that a run starts from."""

    kind: str
    """`run` for its prompt, `run+head` for its head, too."""
    place: str
    """The directory of a run, an exported folder, or its `prompts.safetensors`."""
    digest: str
    """That of its tensors; empty where it is not known yet."""

    def read(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Its tensors and their metadata.

        Raises:
            InputError: there is none, or another one than the digest says.
        """
        place = Path(self.place)
        file = place if place.suffix == ".safetensors" else place / "prompts.safetensors"
        if not file.is_file():
            raise InputError(f"init: there is no {file}; write {self.kind}:DIR with the directory of a finished run.")
        tensors, metadata = saving.load(file)
        if self.digest and self.digest != digest(tensors):
            raise InputError(
                f"init: {file} holds another prompt than {self.digest}, which this run starts from; give the directory "
                "of that one, or leave its number out to start another run."
            )
        return tensors, metadata


def source(init: str | None) -> Source | None:
    """The prompt that `init` names; None for any other start. Raises InputError where it names no directory."""
    found = PATTERN.fullmatch(init or "")
    if found is None:
        return None
    if not found[2] and not found[3]:
        raise InputError(f"init: {init!r} names no directory; write {found[1]}:DIR with that of a finished run.")
    return Source(found[1], found[2], found[3] or "")


def pinned(init: str | None) -> str | None:
    """`init` with the digest of the prompt that it names, so that a run says what it started from.

    A start whose digest is known stays as it is: the source may be gone once the run is trained.

    Raises:
        InputError: there is no such prompt.
    """
    found = source(init)
    return f"{init}#{digest(found.read()[0])}" if found and not found.digest else init


def placeless(init: str | None) -> str | None:
    """`init` without the place of the prompt that it names: what a run is does not depend on where that lies."""
    found = source(init)
    return f"{found.kind}:#{found.digest}" if found else init


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Names, shapes and values of tensors in 16 hexadecimal digits of SHA-256."""
    found = sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found.update(f"{name} {list(value.shape)} {value.dtype}\n".encode())
        found.update(value.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:DIGEST]


def check_init(init: str | None, own: Iterable[str]) -> None:
    """Raise InputError unless `init` is one of a method's `own` starts, or names a prompt."""
    if init is not None and source(init) is None and init not in own:
        raise InputError(f"init: {init!r} is no start; {nearest(init, [*own, 'run:DIR', 'run+head:DIR'])}")


class Transferable(Accompanied, ABC):
    """A prompt that may start from a trained one, which `init: run:DIR` names.

    It takes the prompt of any run with the same backbone, whose folded tensors are those that it trains itself. Its
    head is new, or that of the run with `run+head:DIR`, where labels and reading are the same.
    """

    def start(self) -> None:
        """Take the prompt that `init` names.

        Raises:
            InputError: it was trained with another backbone, or has other tensors, another length or other layers.
        """
        found = source(self.hparams["init"])
        if found is None:
            return
        tensors, saved = found.read()
        what, own = f"init: {found.place}", self.metadata()
        if saved.get("fingerprint") != own["fingerprint"]:
            raise InputError(
                f"{what} was trained with backbone {saved.get('backbone')!r}, whose weights are not those of "
                f"{own['backbone']!r}; a prompt fits the weights that it was trained with, so choose another run."
            )
        given, wanted = ({name for name in some if not _of_head(name)} for some in (tensors, self.tensors()))
        if given != wanted:
            raise InputError(
                f"{what} is a prompt of {saved.get('method')} with {_listed(given)}, and this {type(self).__name__} "
                f"trains {_listed(wanted)}; choose a run of the same family with the same gate and also."
            )
        names = (*self.stored_arguments, *({"layers"} & own.keys()), *(HEAD if found.kind == "run+head" else ()))
        saving.compare(what, saved, {name: own[name] for name in names})
        taken = {name: value for name, value in tensors.items() if found.kind == "run+head" or not _of_head(name)}
        fitting = {name: value for name, value in self.tensors().items() if name in taken}
        saving.compare(what, {"tensors": saving.shapes(taken)}, {"tensors": saving.shapes(fitting)})
        saving.check_values(what, taken)
        self.take(taken)

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Write folded tensors, by their names in a file of prompts, into those that are trained."""
        trained = self.trained()
        for name, value in tensors.items():
            trained[name].copy_(value)


def _of_head(name: str) -> bool:
    return name.startswith("head.")


def _listed(names: Iterable[str]) -> str:
    """A few names."""
    first, *rest = sorted(names) or ["no tensors"]
    return first + (f" and {len(rest)} more" if rest else "")
