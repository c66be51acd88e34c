"""What a run answered: `predictions/<split>.parquet`, row by row, and `<split>.errors.csv`, what is right and wrong.

Both are taken from the evaluation that measures the metrics.
"""

import csv
import io
import json
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, final

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, distributed

from ptune.data.base import TaskData
from ptune.heads import head_class
from ptune.heads.mistakes import Mistakes
from ptune.tuning.saving import write_whole
from ptune.tuning.tuner import PromptTuner


@final
class Predictions(Callback):
    """Keeps the answers to each split that `Trainer.validate` goes through, for one file a split.

    A file has a row for each row of the split that was evaluated, in the split's order, with these columns:

    - `row`: its number in the split, from 0;
    - `answer`, `gold`: a label's name, a number, a text (gold: the list of right ones), or a list with a tag a word;
    - `score`: the answer's probability; a number is its own score, and tags have a list of them;
    - `right`: whether the answer is right; null for numbers;
    - `table/...`: the columns of the head's table (`Head.columns`), of which `ptune.heads.metrics.measure` makes the
      metrics with the `HeadSpec` that stands as JSON in the file's metadata under `head`.

    Beside it is a table of the mistakes, in the form that its kind of head has (`ptune.heads.mistakes`).

    Args:
        data: the data module of the run.

    Attributes:
        split: name of the split that is evaluated; set it before.
    """

    def __init__(self, data: TaskData) -> None:
        self.data = data
        self.head = data.head
        self.split = data.chosen_on
        self.rows: dict[str, dict[int, dict[str, Any]]] = {}
        """For each split the columns of its rows by their numbers; complete in the first process."""
        self._numbers: list[int] = []
        """The rows' numbers in the order in which this process evaluates them."""

    def on_validation_start(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:  # type: ignore[override]
        """Find the order of the rows, once: all of them are sorted for it."""
        numbers, loader = self.data.row_numbers(self.split), trainer.val_dataloaders
        self._numbers = [numbers[place] for place in loader.sampler.order()]  # type: ignore[union-attr]

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: PromptTuner,  # type: ignore[override]
        outputs: Tensor,  # type: ignore[override]
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the answers to a batch; `outputs` are its scores."""
        spec, head, word = self.head, head_class(self.head.kind), self.data.worded
        table = pl_module.metrics.last.cpu()
        answers = head.answers(spec, outputs, batch)
        columns = {
            "answer": [word(answer["answer"]) for answer, *_ in answers],
            "score": [answer["score"] for answer, *_ in answers],
            "right": head.right(table) or [None] * len(table),
            "gold": [word(gold) for gold in head.gold(spec, batch)],
            **{f"table/{name}": values for name, values in zip(head.columns(spec), table.T.tolist(), strict=True)},
        }
        rows, first = self.rows.setdefault(self.split, {}), batch_idx * self.data.batch_size
        numbers = self._numbers[first : first + len(table)]
        for number, values in zip(numbers, zip(*columns.values(), strict=True), strict=True):
            rows[number] = dict(zip(columns, values, strict=True))

    def on_validation_end(self, trainer: L.Trainer, pl_module: PromptTuner) -> None:  # type: ignore[override]
        """Bring the rows of all processes together."""
        if trainer.world_size > 1:
            found: list[dict[int, dict[str, Any]]] = [{} for _ in range(trainer.world_size)]
            distributed.all_gather_object(found, self.rows.get(self.split, {}))
            self.rows[self.split] = dict(chain.from_iterable(rows.items() for rows in found))

    def columns(self, split: str) -> dict[str, list]:
        """The columns of a split's file, by name, in the first process."""
        rows = self.rows[split]
        numbers = sorted(rows)
        return {"row": numbers} | {name: [rows[i][name] for i in numbers] for name in rows[numbers[0]]}

    def mistakes(self, split: str) -> Mistakes:
        """What is right and wrong in the answers to a split."""
        columns = self.columns(split)
        return head_class(self.head.kind).mistakes(self.head, columns["answer"], columns["gold"])

    def write(self, folder: Path) -> None:
        """Write the files of each split; the first process does it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        head = {"head": json.dumps(asdict(self.head))}
        folder.mkdir(exist_ok=True)
        for split in self.rows:
            columns: dict[str, Any] = self.columns(split)
            columns["right"] = pa.array(columns["right"], pa.bool_())
            file = io.BytesIO()
            pq.write_table(pa.table(columns, metadata=head), file)
            write_whole(folder / f"{split}.parquet", file.getvalue())
            found, text = self.mistakes(split), io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows([found.columns, *found.rows])
            write_whole(folder / f"{split}.errors.csv", text.getvalue().encode())
