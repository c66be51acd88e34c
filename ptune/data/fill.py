"""Facts whose object is one word at the template's mask, as LAMA asks for them (Petroni et al. 2019)."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch

from ptune.backbone.pretrained import MINILM
from ptune.backbone.tokenizer import filled, pieces, whole_words
from ptune.data.templated import Templated
from ptune.data.tokens import Batch
from ptune.errors import InputError
from ptune.heads.base import Answer
from ptune.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset


@final
class Fill(Templated):
    """A text and the word that fills its mask; any word of the vocabulary may be the answer.

    Rows whose word is not one token of the backbone's vocabulary are left out, as in LAMA, and counted.
    """

    format: ClassVar[str] = "fill"
    classless = "an answer is a word of the vocabulary, not a class"
    several = True
    top_k = 5
    template_head = "fill"
    usual_label = ("obj_label", "answer", "word", "target")
    reported = ("precision_at_1",)

    def __init__(
        self, task: str | TaskSpec | None = None, backbone: str = MINILM, template: str = "task", **common
    ) -> None:
        super().__init__(task, backbone, template=template, **common)

    @classmethod
    def task_head(cls, task: TaskSpec) -> str:
        """Kind of the head: any word of the vocabulary, as a template asks for it."""
        return "fill"

    def check(self) -> None:
        """Raise an InputError where there is no template."""
        if not self.templated:
            raise InputError("--data.template: missing; a word is filled in at its [MASK], use --data.template task.")
        super().check()
        self._words = set(whole_words(self.backbone).tolist())
        self.left_out: dict[str, int] = {}
        """Number of rows left out of each split; known after setup."""

    def parse(self, row: dict) -> dict:
        """{columns, word: str, label: its token id, -1 where it is not one whole word of the vocabulary}."""
        word = self.string(row, self.task.label).strip()
        ids = pieces(self.tokenizer, [word], spaced=True)[0]
        known = len(ids) == 1 and ids[0] in self._words
        return {"columns": self.columns(row), "word": word, "label": ids[0] if known else -1}

    def unanswered(self, row: dict) -> dict:
        """The row with a word as its answer; as its label is one token, the text has one mask."""
        return row | {self.task.label: self._word}

    @cached_property
    def _word(self) -> str:
        """Some word of the vocabulary."""
        return self.worded(min(self._words))

    def row_settings(self) -> dict[str, Any]:
        """The columns that the template names, and the vocabulary."""
        return super().row_settings() | {"tokenizer": self.tokenizer_fingerprint}

    def prepare_rows(self, parsed: "dict[str, Dataset]") -> None:
        """Leave out rows without a word of the vocabulary; an InputError where a split has no others."""
        for split, rows in parsed.items():
            self.kept[split] = [i for i, label in enumerate(rows["label"][:]) if label >= 0]
            parsed[split] = rows.select(self.kept[split])
            self.left_out[split] = len(rows) - len(parsed[split])
            if not len(parsed[split]):
                raise InputError(
                    f"task {self.task.name!r}: no {self.task.label!r} of the split {split!r} is one word of the "
                    f"vocabulary of {self.backbone!r}; choose another backbone."
                )
        super().prepare_rows(parsed)

    def answer(self, parsed: dict) -> str:
        """The word."""
        return parsed["word"]

    def worded(self, answer: Any) -> Any:
        """The word of a token id."""
        return str(self.tokenizer.decode([answer])).strip()

    def presented(self, checked: dict, answers: list[Answer]) -> list[dict]:
        """[{score, token, token_str, sequence}], best first: token id, word, and the template with columns and word."""
        return [
            {
                "score": answer["score"],
                "token": answer["answer"],
                "token_str": (word := self.worded(answer["answer"])),
                "sequence": self.writer.text(checked["columns"], word),
            }
            for answer in answers
        ]

    def encode(self, rows: list[dict], train: bool) -> list[dict]:
        """One item a row: its text and the token id of its word."""
        texts = self.written(rows, [[filled((row["label"],), self.tokenizer, self.causal)] for row in rows])
        return [text | {"label": row["label"]} for text, row in zip(texts, rows, strict=True)]

    def collate(self, items: list[dict]) -> Batch:
        """The padded texts with labels b."""
        return self.pad_written(items) | {"labels": torch.tensor([item["label"] for item in items])}
