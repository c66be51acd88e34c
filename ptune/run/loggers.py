"""Where a run's numbers go: `metrics.csv` in its directory, and Weights & Biases, online or offline, never asking."""

import csv
import os
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


class _Writer(ExperimentWriter):
    """Lightning's CSV writer, which would delete the rows of the part of a run that is being resumed."""

    def __init__(self, log_dir: str, resumed_at: int) -> None:
        super().__init__(log_dir)
        self._resumed_at: int | None = resumed_at

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        """Record metrics; the first time, take up the rows before the checkpoint: those behind it are logged again.

        So is a validation that was due at the checkpoint itself.
        """
        path = Path(self.metrics_file_path)
        if self._resumed_at is not None and path.exists():
            with path.open(newline="") as file:
                rows = [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]
            again = {*metrics_dict, "step"}
            path.unlink()
            self.metrics = [  # type: ignore[assignment]
                row
                for row in rows
                if int(row["step"]) < self._resumed_at and not (row["step"] == str(step) and row.keys() == again)
            ]
        self._resumed_at = None
        super().log_metrics(metrics_dict, step)

    def _check_log_dir_exists(self) -> None:
        """The run directory is never empty: it holds config.yaml."""


class MetricsFile(CSVLogger):
    """`metrics.csv` in the run directory.

    Args:
        run_dir: the run directory.
        resumed_at: step the run goes on from; 0 for a new one.
    """

    def __init__(self, run_dir: str, resumed_at: int = 0) -> None:
        super().__init__(run_dir, name="", version="", flush_logs_every_n_steps=1)
        self._resumed_at = resumed_at

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:  # type: ignore[override]
        """The writer."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir, self._resumed_at)
        return self._experiment  # type: ignore[return-value]


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases.

    Args:
        enabled: Log to W&B; `false` switches it off (so does WANDB_MODE=disabled).
        project: Project the run belongs to.
        timeout: Seconds to wait for the server before the run goes on offline.
    """

    enabled: bool = True
    project: str = "ptune"
    timeout: float = 10.0

    def logger(self, run_dir: str, config: dict[str, Any]) -> tuple[WandbLogger | None, str]:
        """The logger, None if switched off, and where it logs, in words. `config` holds flat columns.

        Without a key and WANDB_MODE it logs offline; a key whose server does not answer costs `timeout` seconds.
        """
        mode = os.environ.get("WANDB_MODE")
        if not self.enabled or mode == "disabled":
            return None, f"{run_dir}/metrics.csv (W&B is off)"
        import wandb  # takes most of a second: only when it is used

        why = "" if mode == "offline" else self._obstacle(mode)
        offline = mode == "offline" or bool(why)
        id_file = Path(run_dir) / "wandb" / "run_id.txt"
        run_id = id_file.read_text() if id_file.exists() else uuid.uuid4().hex[:8]
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(run_id)
        options = {
            "dir": run_dir,
            "project": self.project,
            "id": run_id,
            "name": "/".join(str(config[key]) for key in ("task", "method", "seed")),
            "group": config["task"],
            "job_type": config["method"],
            "config": config,
            "settings": wandb.Settings(silent=True, init_timeout=self.timeout),
        }
        if not offline:
            try:
                run = wandb.init(mode="online", resume="allow", **options)
            except wandb.Error as error:  # a key that the server refuses, a server that stops answering
                offline, why = True, _line(error)
                wandb.teardown()  # its service would not take the run's id again
        if offline:
            run = wandb.init(mode="offline", **options)
        logger = WandbLogger(experiment=run)
        if offline:
            place = os.path.relpath(Path(run.dir).parent)
            return logger, f"W&B offline{f' ({why})' if why else ''}; upload with: wandb sync {place}"
        return logger, f"W&B {run.url}"

    def _obstacle(self, mode: str | None) -> str:
        """What keeps the run from logging online, in words; empty if nothing does. Costs no more than `timeout`."""
        import wandb

        try:
            # Not verified: that takes minutes where the server does not answer.
            if not (mode or wandb.login(prompt=False, verify=False)):
                return "no W&B key"
        except wandb.Error as error:
            return _line(error)
        return "" if _answers(_server(), self.timeout) else f"no answer from {_server()}"


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


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
