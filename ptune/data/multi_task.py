"""Several tasks at once: their rows share batches, and each task has a head of its own."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, final

import torch

from ptune.backbone.pretrained import MINILM
from ptune.data import cache
from ptune.data.base import TaskData
from ptune.data.classification import Classification
from ptune.data.tokens import Batch
from ptune.errors import InputError
from ptune.heads.by_task import MEAN, named
from ptune.tasks import all_tasks
from ptune.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

ASK = "a row does not say of which task it is; ask a single task's file in the run's prompts/."


@final
class MultiTask(TaskData):
    """Rows of several tasks of one or two texts and a class, in one batch, with a head for each task.

    The metrics are those of each task (`rte:accuracy`) and, to choose the checkpoint by, the mean over the tasks of the
    first one of each. `group` b in a batch is the number of each row's task. All splits are those of every task; few
    shots, held-out and fewer rows are drawn from each task by itself.

    Args:
        tasks: Names of two tasks or more, such as '[rte, cb]'.
        path: Folders with the files of the tasks, in their order; by default the data come from the hub.
        sampling: Training rows of an epoch: `proportional` has each row of every task once, `equal` repeats the rows of
            smaller tasks until each task has as many as the largest.
    """

    format: ClassVar[str] = "multi_task"

    def __init__(
        self,
        tasks: list[str],
        backbone: str = MINILM,
        path: list[str] | None = None,
        sampling: Literal["proportional", "equal"] = "proportional",
        **common,
    ) -> None:
        if isinstance(tasks, TaskSpec):  # what was saved of the tasks, of which no single one is meant
            raise InputError(ASK)
        if not isinstance(tasks, list) or len({*tasks}) < 2 or len({*tasks}) < len(tasks):
            raise InputError(f"--data.tasks {tasks!r:.80}: must name two or more different tasks, e.g. '[rte, cb]'.")
        self.sampling = sampling
        self.parts = _parts(tasks, backbone, path, common)
        super().__init__(task=_joined(self.parts), backbone=backbone, **common)
        self.said = [f"{part.task.name}: {said}" for part in self.parts for said in part.said]

    @classmethod
    def task_head(cls, task: TaskSpec) -> str:
        """Kind of the head: the classes of each task."""
        return "by_task"

    def _load(self) -> None:
        if self._items:
            return
        for part in self.parts:
            part.setup()
        for split in (self.task.train, *self.evaluated):
            if all(split in part.fingerprints() for part in self.parts):
                self._rows[split] = self._together([part._rows[split] for part in self.parts], split)
                self._items[split] = self._together([part.items_of(split) for part in self.parts], split)
        if self.chosen_on not in self._items:
            lacking = [part.task.name for part in self.parts if self.chosen_on not in part.fingerprints()]
            raise InputError(f"--data.tasks: {', '.join(lacking)} has no split {self.chosen_on!r}; add that file.")

    def _missing_train(self) -> None:
        for part in self.parts:
            if self.task.train not in part.fingerprints():
                part._missing_train()

    def _together(self, found: "list[Dataset]", split: str) -> "Dataset":
        """The rows of all tasks with their task's number as `group`, and the codes of all labels after one another."""
        from datasets import concatenate_datasets

        most, first, joined = max(map(len, found)), 0, []
        for number, (rows, part) in enumerate(zip(found, self.parts, strict=True)):
            labels = [first + label for label in rows["label"][:]]
            own = rows.remove_columns("label").add_column("label", labels)  # type: ignore[call-arg]
            own = own.add_column("group", [number] * len(own))  # type: ignore[call-arg]
            if split == self.task.train and self.sampling == "equal":
                own = own.select([i % len(own) for i in range(most)])
            joined.append(own)
            first += len(part.task.labels)
        return concatenate_datasets(joined)

    def fingerprints(self) -> dict[str, str]:
        """A digest of each split's rows: those of the tasks, and how they are sampled."""
        found = [part.fingerprints() for part in self.parts]
        return {split: cache.key(self.sampling, [own[split] for own in found]) for split in self._items}

    def texts(self, checked: dict) -> dict[str, str]:
        """The texts of a checked row by the names that its task has for them."""
        return self.parts[checked["group"]].texts(checked)

    def recipe(self) -> dict[str, Any]:
        """How the rows of each task are read, as they are by themselves."""
        name = Classification.__name__
        own = [{"class": name, "arguments": part.recipe(), "learned": part.learned()} for part in self.parts]
        return super().recipe() | {"parts": own}

    def parse(self, row: dict) -> NoReturn:
        """Raise an InputError: a row alone does not say of which task it is."""
        raise InputError(ASK)

    def encode(self, rows: list[dict], train: bool) -> NoReturn:
        """Raise an InputError as `parse`."""
        return self.parse({})

    def collate(self, items: list[dict]) -> Batch:
        """The padded texts with labels b, codes of the labels of all tasks, and group b, the number of the task."""
        batch = self.pad(items)
        batch["labels"] = torch.tensor([item["label"] for item in items])
        batch["group"] = torch.tensor([item["group"] for item in items])
        return batch


def _parts(tasks: list[str], backbone: str, path: list[str] | None, common: dict[str, Any]) -> list[Classification]:
    """The data of the single tasks."""
    if path is not None and len(path) != len(tasks):
        raise InputError(f"--data.path {path}: must name a folder for each of {len(tasks)} tasks, in their order.")
    for name in tasks:
        known = all_tasks().get(name)
        if known and known.format != Classification.format:
            raise InputError(f"--data.tasks: {name!r} is a {known.format} task and not one of classes; leave it out.")
    pairs = zip(tasks, path or [None] * len(tasks), strict=True)
    return [Classification(task, backbone, path=own, **common) for task, own in pairs]


def _joined(parts: list[Classification]) -> TaskSpec:
    """All tasks as one: its labels and metrics are theirs, with the names of the tasks before them."""
    tasks, first = [part.task for part in parts], parts[0].task
    for task in tasks:
        if not task.labels or task.group:
            what = "groups of rows" if task.labels else "numbers"
            raise InputError(f"--data.tasks: {task.name!r} has {what} and not one class a row; leave it out.")
        if (task.train, task.evaluate[0]) != (first.train, first.evaluate[0]):
            raise InputError(
                f"--data.tasks: {task.name!r} has splits {task.train} and {task.evaluate[0]}, and {first.name!r} "
                f"{first.train} and {first.evaluate[0]}; several tasks at once need the same."
            )
    return TaskSpec(
        "multi/" + "-".join(task.name.rpartition("/")[2] for task in tasks)[:60],
        MultiTask.format,
        text=("text",),
        labels=tuple(named(task.name, label) for task in tasks for label in task.labels),
        train=first.train,
        evaluate=first.evaluate,
        metrics=(MEAN, *(named(task.name, name) for task in tasks for name in _monitored_first(task))),
        monitor=MEAN,
        max_length=max(part.max_length for part in parts),
    )


def _monitored_first(task: TaskSpec) -> list[str]:
    return sorted(task.metrics, key=lambda name: name != task.monitored)
