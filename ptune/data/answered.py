"""`Answered`: rows without answers become what the model reads, and the head's answers what a reader reads."""

from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar

from ptune.data.loaded import LoadedSplits
from ptune.errors import InputError
from ptune.heads.base import Answer


class Answered(LoadedSplits, ABC):
    """What `ptune.load` and the tables of predictions need of a task's data beside its batches."""

    several: ClassVar[bool] = False
    """Whether a row has a list of answers by itself, as entities are."""
    top_k: ClassVar[int] = 1
    """Number of answers to a row that are given without being asked for."""

    def of_texts(self, texts: Sequence[str]) -> dict:
        """The row that `parse` takes, without an answer, of the texts that the model reads, in the task's order.

        Raises:
            InputError: their number is not that of the task's columns.
        """
        columns = self.read_columns
        if len(texts) != len(columns):
            raise InputError(
                f"{len(texts)} text{'s' * (len(texts) != 1)} for a task that reads {len(columns)} "
                f"({', '.join(columns)}); give {self.as_texts(columns)}, or a row with named columns."
            )
        return dict(zip(columns, texts, strict=True))

    def as_texts(self, columns: Sequence[str]) -> str:
        """How a row is given as texts, in words."""
        return f"a tuple of {len(columns)}" if len(columns) > 1 else "one text"

    @property
    def read_columns(self) -> tuple[str, ...]:
        """The columns that a row's texts stand in."""
        return self.task.text

    def texts(self, checked: dict) -> dict[str, str]:
        """The texts of a checked row by the names of their columns, for a reader."""
        return dict(zip(self.read_columns, checked["texts"], strict=True))

    def texts_of(self, split: str, numbers: Sequence[int]) -> list[dict[str, str]]:
        """The texts of rows of `split`, given by their `row_numbers`; call it after setup."""
        places = {number: place for place, number in enumerate(self.row_numbers(split))}
        return [self.texts(self._rows[split][places[number]]) for number in numbers]

    def worded(self, answer: Any) -> Any:
        """An answer of the head as the data write it."""
        return answer

    def presented(self, checked: dict, answers: list[Answer]) -> list[dict]:
        """The answers to a checked row in the form of a pipeline of transformers; here {label, score}, best first."""
        return [{"label": answer["answer"], "score": answer["score"]} for answer in answers]
