"""Prefix-Tuning+, later named PrefixMemory-Tuning (Wang et al. 2025, arXiv:2506.13674): the prefix outside the softmax.

A prefix shares the softmax with the text, so that it has little weight beside a long text, and a text has little beside
a long prefix. The paper takes it out, as a term of linear attention, and trains that term's matrix directly instead of
keys and values:

    o_i = softmax(q_i K^T) V + sum_j phi(q_i)^T phi(k_j) v_j^T  ->  softmax(q_i K^T) V + phi(q_i)^T M

Choices where the paper leaves them open or was not at hand: phi is elu(x), and not the elu(x) + 1 of linear attention
(Katharopoulos et al. 2020), whose sum of similarities must be positive because it divides by it. The 1 is the same for
all queries, so that part of M would train a constant of each head; with it the one run that was compared stayed at
chance. Training depends on rate and warm-up, and may stay at chance with either map (experiments/README.md). M starts
at 0, so that training starts from the backbone itself; each query head has a matrix of its own, "k k"; q is the query
as the family's attention function reads it, turned by rotary positions where there are some.
"""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ptune.heads import Batch
from ptune.prompts import Prompts
from ptune.tuning.layered import Layered


@final
class Memory(nn.Module):
    """A matrix of each query head, "heads k k", for each prompted layer; all are 0 at their start.

    Args:
        heads: number of query heads.
        sizes: k, the size of a head, for each prompted layer.
    """

    def __init__(self, heads: int, sizes: list[int]) -> None:
        super().__init__()
        self.matrices = nn.ParameterList(torch.zeros(heads, k, k) for k in sizes)

    def forward(self) -> tuple[Float[Tensor, "heads k k"], ...]:
        """The matrices of every prompted layer."""
        return tuple(self.matrices)

    def by_layer(self) -> dict[str, Sequence[Tensor]]:
        """Each layer's matrices, and their gradients, once there are some."""
        found: dict[str, Sequence[Tensor]] = {"prompt_norm": [value.detach() for value in self.matrices]}
        gradients = [value.grad for value in self.matrices if value.grad is not None]
        return found | {"prompt_grad_norm": gradients} if gradients else found


@final
class PrefixMemory(Layered):
    """Train a matrix of each attention head that adds to what the head attends to, and the head of the task."""

    prompt: Memory

    def __init__(self, **common) -> None:
        super().__init__(**common)
        self.prompt = Memory(self.spec.heads, [k for _, k in self.kv_sizes])

    def prompts(self, batch: Batch) -> Prompts:
        """The matrices of every prompted layer."""
        return Prompts(memory=self.prompt(), layers=self.layers)

    def by_layer(self) -> dict[str, Sequence[Tensor]]:
        """The matrices of each prompted layer, and their gradients."""
        return self.prompt.by_layer()
