"""Where a run's numbers go beside its own files: Weights & Biases, which never asks, or another of Lightning's."""

import math
import os
import traceback
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from lightning.pytorch.loggers import WandbLogger

from ptune.errors import InputError, first_line
from ptune.run.identity import Identity

if TYPE_CHECKING:
    from wandb import Run

FEW = 20
"""Steps below which a run is a trial, which `wandb.enabled: auto` does not log."""
MOST_SAMPLES = 10_000
"""Rows of the largest table that W&B shows."""
PATIENCE = 300
"""Seconds that a run waits at its end for what is still to be uploaded; it then lies in the run directory."""
STEP = "trainer/global_step"
"""Under which Lightning's logger gives the step."""


@contextmanager
def told() -> Iterator[None]:
    """Turn an error of Lightning's loggers into an InputError, such as a missing key; its type is the service's own."""
    try:
        yield
    except Exception as error:
        files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
        if not any({"lightning", "loggers"} <= {*file.parts} for file in files):
            raise
        raise InputError(f"trainer.logger: {first_line(error)}; mend that, or choose another logger.") from error


@final
@dataclass(frozen=True)
class Wandb:
    """Weights & Biases.

    Args:
        enabled: Log to W&B: `true` for every run, `auto` for those of 20 steps or more, `false` for none, as
            WANDB_MODE=disabled.
        project: Project the run belongs to.
        timeout: Seconds to wait for the server before the run goes on offline.
        samples: Rows of each split whose texts and answers are logged when the run ends, half of them wrong ones; with
            0 no text of the data is logged.
    """

    enabled: bool | Literal["auto"] = "auto"
    project: str = "ptune"
    timeout: float = 10.0
    samples: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.timeout < math.inf:
            raise InputError(f"wandb.timeout: {self.timeout} must be greater than 0 and finite.")
        if not 0 <= self.samples <= MOST_SAMPLES:
            raise InputError(f"wandb.samples: {self.samples} must be at least 0 and at most {MOST_SAMPLES}.")

    def logger(
        self,
        run_dir: str,
        identity: Identity,
        config: dict[str, Any],
        metrics: Sequence[str],
        steps: int | float = math.inf,
    ) -> tuple[WandbLogger | None, str]:
        """The logger, None if switched off, and where it logs, in words.

        Runs that differ in the seed alone are a group.
        Without a key and WANDB_MODE it logs offline; a key whose server does not answer costs `timeout` seconds.

        Args:
            run_dir: the run directory.
            identity: what the run is called, and what its group is.
            config: flat columns that describe the run.
            metrics: names of the task's metrics, all of which are better when they are larger.
            steps: optimizer steps of the run; an evaluation is a result whatever it takes.
        """
        mode, local = os.environ.get("WANDB_MODE"), f"{run_dir}/metrics.csv"
        if not self.enabled or mode == "disabled":
            return None, f"{local} (W&B is off)"
        if self.enabled == "auto" and steps < FEW:
            return None, f"{local} (W&B is off for fewer than {FEW} steps; --wandb.enabled true logs them)"
        import wandb  # takes most of a second: only when it is used

        why = "" if mode == "offline" else obstacle(self.timeout, mode)
        offline = mode == "offline" or bool(why)
        id_file = Path(run_dir) / "wandb" / "run_id.txt"
        given = os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None  # by an agent of a sweep
        run_id = id_file.read_text() if id_file.exists() else given or uuid.uuid4().hex[:8]
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(run_id)
        options = {
            "dir": run_dir,
            "project": self.project,
            "id": run_id,
            "name": identity.name,
            "group": identity.group,
            "job_type": identity.method,
            "tags": identity.tags,
            "config": config,
            "settings": wandb.Settings(silent=True, init_timeout=self.timeout, finish_timeout=PATIENCE),
        }
        if not offline:
            try:
                run = wandb.init(mode="online", resume="allow", **options)
            except wandb.Error as error:  # a key that the server refuses, a server that stops answering
                offline, why = True, first_line(error)
                wandb.teardown()  # its service would not take the run's id again
        if offline:
            run = wandb.init(mode="offline", **options)
        _define(run, metrics)
        logger = WandbLogger(experiment=run)
        if offline:
            place = os.path.relpath(Path(run.dir).parent)
            return logger, f"W&B offline{f' ({why})' if why else ''}; upload with: wandb sync {place}"
        return logger, f"W&B {run.url}"


def _define(run: "Run", metrics: Sequence[str]) -> None:
    """Let W&B draw everything over Lightning's step, and keep the best value of a validation in the summary."""
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    best = {f"val/{name}": "max" for name in metrics} | {"val/loss": "min"}  # a pattern would lose against "*" above
    for name, summary in best.items():
        run.define_metric(name, step_metric=STEP, step_sync=True, summary=summary)


def obstacle(timeout: float, mode: str | None = None) -> str:
    """What keeps this machine from W&B's server, in words; empty if nothing does. It costs no more than `timeout`.

    A key is not asked for where there is a `mode`, the value of WANDB_MODE.
    """
    import wandb

    try:
        # Not verified: that takes minutes where the server does not answer.
        if not (mode or wandb.login(prompt=False, verify=False)):
            return "no W&B key"
    except wandb.Error as error:
        return first_line(error)
    return "" if _answers(_server(), timeout) else f"no answer from {_server()}"


def _server() -> str:
    import wandb

    return wandb.setup().settings.base_url


def _answers(url: str, timeout: float) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=timeout):
            return True
    except urllib.error.HTTPError:  # an answer all the same
        return True
    except OSError:
        return False
