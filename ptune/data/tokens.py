"""`Tokens`: checked rows become tokenized items, and items a batch, padded and with prompt slots."""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ptune.backbone.tokenizer import encoded, load, stand_in, text_start
from ptune.data import cache
from ptune.data.columns import Columns

Batch = dict[str, Any]
"""A collated batch: tensors on the CPU, and for span evaluation the list `references`."""


class Tokens(Columns):
    """The second and third step of `TaskData`: `items` tokenizes rows, `collate` makes a batch of them."""

    backbone: str
    max_length: int
    slots: int
    pad_to_multiple_of: int

    @abstractmethod
    def encode(self, rows: list[dict], train: bool) -> list[dict]:
        """Items of parsed rows, without slots: `input_ids` (a list, or a list of lists), token types, labels, ..."""

    @abstractmethod
    def collate(self, items: list[dict]) -> Batch:
        """A batch of items, padded, with slots."""

    def items(self, checked: list[dict], train: bool = False) -> list[dict]:
        """Tokenized rows, of which `collate` makes a batch; `length` is the number of tokens of the longest text."""
        return [item | {"length": _longest(item["input_ids"])} for item in self.encode(checked, train)]

    def settings(self) -> dict[str, Any]:
        """Further values that the items depend on; they are part of the cache's key."""
        return {}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer; without a padding token it pads with its end token, which the mask hides."""
        return load(self.backbone)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """Everything that decides what the tokenizer returns; part of the cache's key."""
        return cache.fingerprint(self.tokenizer)

    @cached_property
    def slot_at(self) -> int:
        """Index of the first prompt slot: 1 after a special first token ([CLS], <s>), else 0."""
        return text_start(self.tokenizer)

    @property
    def budget(self) -> int:
        """Largest number of tokens in a text with its special tokens, without the prompt slots."""
        return self.max_length - self.slots

    def encode_texts(self, texts: list[list[str]]) -> list[dict]:
        """input_ids, and token_type_ids where the tokenizer has them, of rows of one text or two, cut to the budget."""
        first, *second = (list(column) for column in zip(*texts, strict=True))
        tokens = encoded(self.tokenizer, first, second[0] if second else None, self.budget)
        return [{name: values[i] for name, values in tokens.items()} for i in range(len(texts))]

    def pad(self, texts: list[dict]) -> Batch:
        """input_ids, attention_mask, slots, and token types where the tokenizer has them, n×t, of n tokenized texts."""
        tokenizer, ids = self.tokenizer, [text["input_ids"] for text in texts]
        batch: Batch = {
            "input_ids": self.align(ids, stand_in(tokenizer), tokenizer.pad_token_id),
            "attention_mask": self.align([[1] * len(row) for row in ids], 1, 0),
        }
        if "token_type_ids" in texts[0]:
            batch["token_type_ids"] = self.align([text["token_type_ids"] for text in texts], 0, 0)
        if self.slots:
            batch["slots"] = self.align([[False] * len(row) for row in ids], True, False)
        return batch

    def align(self, values: list[list], slot: Any, fill: Any) -> Shaped[Tensor, "n t *rest"]:
        """One value for each token, as a tensor: `slot` at the prompt slots, `fill` at the padding on the right."""
        at, p = self.slot_at, self.slots
        return self.padded([row[:at] + [slot] * p + row[at:] for row in values], fill)

    def padded(self, values: list[list], fill: Any) -> Shaped[Tensor, "n t *rest"]:
        """One value for each token of texts that have their slots, as a tensor: `fill` at the padding on the right.

        `t` is the length of the longest text, raised to a multiple of `pad_to_multiple_of` but not above `max_length`.
        """
        longest, step = max(map(len, values)), self.pad_to_multiple_of
        t = max(longest, min(-(-longest // step) * step, self.max_length))
        return torch.tensor([row + [fill] * (t - len(row)) for row in values])

    def after_slots(self, position: int) -> int:
        """The position, with the prompt slots, of the token at `position` of the text without them."""
        return position + self.slots if position >= self.slot_at else position


def _longest(ids: list) -> int:
    return max(len(row) for row in ids) if ids and isinstance(ids[0], list) else len(ids)
