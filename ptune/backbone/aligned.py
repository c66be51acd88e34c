"""Texts moved to the front of their rows, for families whose positions count from the first token, padding included."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ptune.prompts import Prompts

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Columns of a batch that a model reads as they are."""
ALIGNED = (*INPUTS, "slots")
"""Columns of a batch with a value for every token."""


def aligned(
    batch: dict[str, Tensor], prompts: Prompts, read: Int[Tensor, "b a"] | None
) -> tuple[
    dict[str, Tensor],
    Prompts,
    Int[Tensor, "b a"] | None,
    Callable[[Float[Tensor, "b t d"]], Float[Tensor, "b t d"]],
]:
    """A padded batch whose texts begin at their rows' first token, all that goes with its tokens, and the way back.

    Args:
        batch: as for `Backbone.forward`, with an attention mask.
        prompts: of the batch; `added` belongs to its tokens.
        read: the places of the tokens whose states are read.

    Returns:
        The three, moved, and a function that moves hidden states of the moved batch to where the tokens were.
    """
    mask = batch["attention_mask"]
    rows, columns = (torch.arange(n, device=mask.device) for n in mask.shape)
    rows, start, t = rows[:, None], mask.int().argmax(1, keepdim=True), len(columns)
    there = (columns + start) % t
    moved = batch | {key: batch[key][rows, there] for key in ALIGNED if key in batch}
    if "answer_at" in batch:
        moved["answer_at"] = (batch["answer_at"] - start) % t
    if prompts.added is not None:
        prompts = replace(prompts, added=prompts.added.expand(len(mask), -1, -1)[rows, there])
    return moved, prompts, None if read is None else (read - start) % t, lambda x: x[rows, (columns - start) % t]
