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
        """Record metrics; the first time, take up the rows before the checkpoint: those behind it are logged again."""
        path = Path(self.metrics_file_path)
        if self._resumed_at is not None and path.exists():
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) < self._resumed_at]
            path.unlink()
            self.metrics = [{k: v for k, v in row.items() if v != ""} for row in rows]  # type: ignore[misc]
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

        why = ""
        if mode != "offline" and not (mode or wandb.login(prompt=False)):
            mode, why = "offline", "no W&B key"
        elif mode != "offline" and not _answers(_server(), self.timeout):
            mode, why = "offline", f"no answer from {_server()}"
        offline = mode == "offline"
        id_file = Path(run_dir) / "wandb" / "run_id.txt"
        run_id = id_file.read_text() if id_file.exists() else uuid.uuid4().hex[:8]
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(run_id)
        run = wandb.init(
            dir=run_dir,
            project=self.project,
            mode="offline" if offline else "online",
            id=run_id,
            name="/".join(str(config[key]) for key in ("task", "method", "seed")),
            group=config["task"],
            job_type=config["method"],
            config=config,
            resume=None if offline else "allow",
            settings=wandb.Settings(silent=True, init_timeout=self.timeout),
        )
        logger = WandbLogger(experiment=run)
        if offline:
            place = os.path.relpath(Path(run.dir).parent)
            return logger, f"W&B offline{f' ({why})' if why else ''}; upload with: wandb sync {place}"
        return logger, f"W&B {run.url}"


def _server() -> str:
    import wandb

    return wandb.Settings().base_url


def _answers(url: str, timeout: float) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=timeout):
            return True
    except urllib.error.HTTPError:  # an answer all the same
        return True
    except OSError:
        return False
