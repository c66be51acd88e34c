"""A run's own numbers: `metrics.jsonl` and `metrics.csv`."""

import csv
import json
import math
from pathlib import Path
from typing import Any, final

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ptune.tuning.saving import write_whole


@final
class MetricsLog(Logger):
    """`metrics.jsonl`, a line for each time metrics are logged; `metrics.csv`, the same as a table when training ends.

    Lines are only ever appended, so that a kill or a full disk costs the last line at most. A number that is not finite
    is null, as JSON has none.

    Args:
        run_dir: the run directory.
        resumed_at: step the run goes on from; 0 for a new one. Later lines are dropped: they will be logged again.
    """

    def __init__(self, run_dir: str, resumed_at: int = 0) -> None:
        super().__init__()
        self.file = Path(run_dir, "metrics.jsonl")
        self._resumed_at: int | None = resumed_at

    @property
    def name(self) -> str:
        """None: it lies in the run directory itself."""
        return ""

    @property
    def version(self) -> str:
        """None."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line."""
        values = {name: float(value) for name, value in metrics.items()}
        row = {name: value if math.isfinite(value) else None for name, value in values.items()} | {"step": step}
        if self._resumed_at is not None:
            self._take_up(row)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _take_up(self, first: dict[str, Any]) -> None:
        """Keep the lines of the steps before the checkpoint, when a resumed run logs for the first time.

        A validation that was due at the checkpoint itself runs again and is the `first` row: its line is dropped, too.
        """
        kept = [
            row
            for row in read_metrics(self.file)
            if row["step"] < self._resumed_at and not (row["step"] == first["step"] and row.keys() == first.keys())
        ]
        self._resumed_at = None
        if self.file.exists():
            write_whole(self.file, "".join(json.dumps(row) + "\n" for row in kept).encode())

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `config.yaml` holds them."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write `metrics.csv`."""
        rows = read_metrics(self.file)
        names = dict.fromkeys(name for row in rows for name in row)
        if not rows:
            return
        with self.file.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(rows)


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a line that a kill or a full disk has torn is left out."""
    rows = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows
