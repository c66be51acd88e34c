"""Tagging: one tag a word, read at the word's first sub-token."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import torch

from ptune.data import conll, open_task
from ptune.data.base import TaskData
from ptune.data.pieces import cut
from ptune.data.rows import Rows
from ptune.data.schemes import HELP, labels_of, misfit, mistake, scheme_of
from ptune.data.tokens import Batch
from ptune.data.written import written_list
from ptune.errors import InputError
from ptune.heads.base import Answer
from ptune.heads.tags import groups, plain_tag
from ptune.tasks.spec import HeadSpec, TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset

NO_LABEL = -100
"""The label that torch's cross entropy ignores."""


@final
class Tagging(TaskData):
    """Words and one tag for each of them. A sentence that is too long for the model is cut into pieces, between words.

    In training each piece is a row. In evaluation a row is a sentence with all its pieces, so that entities are counted
    over whole sentences and every word once. Where a sentence is cut does not depend on its tags.

    Args:
        decoding: Scheme that the tags of an answered sentence must follow; they are those with the greatest sum of
            scores among all such sequences, found by Viterbi's algorithm without trained transitions. By default each
            word gets its best tag. Training is the same, so `ptune.evaluate RUN --data.decoding IOB2` compares both.
    """

    format: ClassVar[str] = "tagging"
    several = True
    classless = "a sentence has many tags, not one class"
    reported = ("entity_f1", "entity_precision", "entity_recall")

    usual_text = (("tokens",), ("words",))
    usual_label = ("tags", "ner_tags", "labels")
    scheme = ""
    """The scheme of the training split's tags, which the other splits must follow; "" where the labels are given."""

    def __init__(self, *args, decoding: Literal["IOB1", "IOB2", "IOBES", "BILOU"] | None = None, **kwargs):
        self.decoding = decoding
        super().__init__(*args, **kwargs)

    @classmethod
    def task_head(cls, task: TaskSpec) -> str:
        """Kind of the head: one tag a word."""
        return "tag"

    def remark(self, row: dict, origin: str) -> str:
        """Which columns a column file has, and which lines are no words."""
        if not origin.removesuffix(".gz").endswith(conll.SUFFIXES):
            return ""
        count = max([2, *(int(name) for name in row if name.isdecimal())])
        return f"the file has {count} columns, tags the last one; {conll.BEGIN} lines and comments (#) are left out"

    @property
    def labels_open(self) -> bool:
        """Whether the task has no labels."""
        return not self.task.labels

    def read_labels(self, rows: Rows) -> list[dict]:
        """The labels in their order, with the scheme of the tags: {name, scheme}."""
        sentences = []
        for place, value in open_task.answers(self, rows):
            try:
                tags = self._list({self.task.label: value}, self.task.label)
            except InputError as error:
                raise InputError(f"{place}: {error}") from error
            sentences.append((place, [open_task.label_name(tag) for tag in tags]))
        scheme, names = scheme_of(sentences), {tag for _, tags in sentences for tag in tags}
        labels = labels_of(names, scheme) if scheme else open_task.in_order(names)
        return [{"name": label, "scheme": scheme} for label in labels]

    def take_labels(self, found: list[dict], origin: str) -> TaskSpec:
        """The task with the tags: O first and the kinds of entities sorted; or all of them, sorted."""
        labels, self.scheme = tuple(row["name"] for row in found), found[0]["scheme"]
        how = f"{self.scheme} tags, O first" if self.scheme else "sorted"
        self.said.append(f"labels are those of the training split, {how}: {open_task.listed(labels)}")
        return replace(self.task, labels=labels)

    def row_settings(self) -> dict[str, Any]:
        """The scheme that every row is checked by."""
        return {"scheme": self.scheme}

    @classmethod
    def field_metrics(cls, task: TaskSpec) -> tuple[str, ...]:
        """Those of entities, or the accuracy where a tag does not say where an entity begins."""
        return ("accuracy",) if plain_tag(task.labels) else cls.reported

    def check(self) -> None:
        """Raise an InputError where the task does not name one column of words and its tags."""
        if len(self.task.text) != 1:
            raise InputError(
                f"task {self.task.name!r}: --data.task.text must name one column, the words, e.g. '[tokens]'."
            )
        if len(self.task.labels) < 2:
            raise InputError(f"task {self.task.name!r}: --data.task.labels must list the tags, e.g. '[O,B-PER,I-PER]'.")
        if self.decoding:
            self._check_decoding(self.decoding)

    def _check_decoding(self, scheme: str) -> None:
        """Raise an InputError where the tags are not those of the scheme."""
        start = f"--data.decoding {scheme}: "
        if wrong := misfit(self.task.labels, scheme):
            raise InputError(f"{start}{wrong}; choose the scheme of task {self.task.name!r}, or leave it out.")
        if self.scheme not in ("", scheme):
            raise InputError(f"{start}the tags of the training split follow {self.scheme}; use that, or leave it out.")

    @property
    def head(self) -> HeadSpec:
        """One tag a word, and how the tags of a sentence are decoded."""
        return replace(super().head, decoding=self.decoding or "")

    def recipe(self) -> dict[str, Any]:
        """The arguments that a row is read by, and how its answer is decoded."""
        return super().recipe() | {"decoding": self.decoding}

    def prepare_rows(self, parsed: "dict[str, Dataset]") -> None:
        """Say how many training sentences have tags that the decoding cannot give."""
        if not self.decoding or self.task.train not in parsed:
            return
        rows, labels = parsed[self.task.train]["tags"], self.task.labels
        wrong = sum(bool(mistake([labels[code] for code in row], self.decoding)) for row in rows)
        if wrong:
            self.said.append(f"tags of {wrong:,} training rows do not follow the decoding's scheme {self.decoding}")

    def parse(self, row: dict) -> dict:
        """{words: strings, tags: codes}; both columns hold a list, or a text (CSV).

        A text is a written list, `['a', 'b']`, or is split at white space.
        """
        (column,) = self.task.text
        words, tags = (self._list(row, name) for name in (column, self.task.label))
        if len(words) != len(tags):
            raise InputError(
                f"column {self.task.label!r} has {len(tags)} tags for {len(words)} words in {column!r}; give each one."
            )
        if self.scheme and (wrong := mistake(list(map(str, tags)), self.scheme)):
            raise InputError(f"column {self.task.label!r}: {wrong}; {HELP}.")
        return {"words": [str(word) for word in words], "tags": [self.code(tag) for tag in tags]}

    def unanswered(self, row: dict) -> dict:
        """The row with the first label as the tag of each word."""
        words = self._list(row, self.task.text[0])
        return row | {self.task.label: [self.task.labels[0]] * len(words)}

    def _list(self, row: dict, name: str) -> list:
        value = self.column(row, name)
        if isinstance(value, str):
            found = written_list(name, value, codes=name == self.task.label)
            value = value.split() if found is None else found
        if not isinstance(value, Sequence) or not all(map(_is_word, value)):
            raise InputError(f"column {name!r} must be a list with an item a word, not {value!r:.40}.")
        if not value:
            raise InputError(f"column {name!r} is empty; fill it or remove the row.")
        return list(value)

    def of_texts(self, texts: Sequence[str]) -> dict:
        """The row of a sentence: one text, which is split at white space and around punctuation, or its words."""
        words = re.findall(r"\w+|[^\w\s]", texts[0]) if len(texts) == 1 else list(texts)
        return {self.task.text[0]: words}

    def texts(self, checked: dict) -> dict[str, str]:
        """The words, joined by spaces."""
        return {self.task.text[0]: " ".join(checked["words"])}

    def presented(self, checked: dict, answers: list[Answer]) -> list[dict]:
        """The entities in order, {entity_group, score, word, start, end}; all words where tags have no B-, I-, ...

        `word` is the text from `start` to `end`, characters of the sentence, or of its words joined by spaces; `score`
        is the mean probability of its words' tags.
        """
        (answer,) = answers
        text = checked.get("text") or " ".join(checked["words"])
        places, end = [], 0
        for word in checked["words"]:
            start = text.index(word, end)
            end = start + len(word)
            places.append((start, end))
        found = []
        for group, first, last in groups(answer["answer"], self.task.labels):
            start, end = places[first][0], places[last][1]
            score = sum(answer["score"][first : last + 1]) / (last + 1 - first)
            found.append({"entity_group": group, "score": score, "word": text[start:end], "start": start, "end": end})
        return found

    def encode(self, rows: list[dict], train: bool) -> list[dict]:
        """Items with lists of pieces: input_ids, token_type_ids, labels (-100 where no word begins)."""
        if not self.tokenizer.is_fast:
            raise InputError(f"backbone {self.backbone!r}: its tokenizer keeps no word numbers, which tagging needs.")
        limit = self.budget - self.tokenizer.num_special_tokens_to_add()
        sentences, counts = self._readable([row["words"] for row in rows])
        cuts = [cut(tokens, limit) for tokens in counts]
        spans = [(i, a, b) for i, starts in enumerate(cuts) for a, b in zip(starts, [*starts[1:], None], strict=True)]
        tokens = self.tokenizer(
            [sentences[i][a:b] for i, a, b in spans],
            is_split_into_words=True,
            truncation=True,  # cuts a single word that is longer than the model after its first sub-tokens
            max_length=self.budget,
            return_attention_mask=False,
        )
        items: list[dict] = [{} for _ in (spans if train else rows)]
        for piece, (i, a, b) in enumerate(spans):
            item = items[piece if train else i]
            for name in ("input_ids", "token_type_ids"):
                if name in tokens:
                    item.setdefault(name, []).append(tokens[name][piece])
            item.setdefault("labels", []).append(first_tokens(tokens.word_ids(piece), rows[i]["tags"][a:b]))
        return items

    @cached_property
    def _space(self) -> str:
        """What precedes each word for it to have the tokens it has in a text: a space for byte-level tokenizers."""
        text = self.tokenizer("a a", add_special_tokens=False)["input_ids"]
        words = self.tokenizer(["a", "a"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
        return "" if words == text else " "

    def _readable(self, sentences: list[list[str]]) -> tuple[list[list[str]], list[list[int]]]:
        """The words as the tokenizer needs them, and the number of tokens of each, at least 1.

        A word that the tokenizer drops (a control character) becomes the unknown token, so that it keeps its tag.
        """
        sentences = [[self._space + word for word in words] for words in sentences]
        tokens = self.tokenizer(sentences, is_split_into_words=True, add_special_tokens=False, verbose=False)
        unknown = str(self.tokenizer.unk_token or self.tokenizer.pad_token)
        counts = []
        for i, words in enumerate(sentences):
            found = Counter(tokens.word_ids(i))
            sentences[i] = [word if found[n] else unknown for n, word in enumerate(words)]
            counts.append([found[n] or 1 for n in range(len(words))])
        return sentences, counts

    def collate(self, items: list[dict]) -> Batch:
        """The n padded pieces of b rows: labels n×t, and feature_row n, the row of each piece."""
        names = [name for name in ("input_ids", "token_type_ids") if name in items[0]]
        batch = self.pad([{n: item[n][i] for n in names} for item in items for i in range(len(item["input_ids"]))])
        batch["labels"] = self.align([labels for item in items for labels in item["labels"]], NO_LABEL, NO_LABEL)
        batch["feature_row"] = torch.tensor([row for row, item in enumerate(items) for _ in item["labels"]])
        return batch

    def gold(self, items: "Dataset") -> list[list[int]]:
        """The tags of every row's words."""
        return [[tag for piece in row for tag in piece if tag != NO_LABEL] for row in items["labels"]]


def _is_word(item: object) -> bool:
    return isinstance(item, str | int) or (isinstance(item, float) and math.isfinite(item))


def first_tokens(words: list[int | None], tags: list[int]) -> list[int]:
    """A tag at the first token of each word, -100 elsewhere; `words` is the word number of each token."""
    before = [None, *words[:-1]]
    return [NO_LABEL if word is None or word == last else tags[word] for last, word in zip(before, words, strict=True)]
