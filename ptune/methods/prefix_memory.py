"""Prefix-Tuning+, later named PrefixMemory-Tuning (Wang et al. 2025, arXiv:2506.13674): the prefix outside the softmax.

A prefix shares the softmax with the text, so that a long text drowns it and a long prefix drowns the text. The paper
takes it out, as a term of linear attention, and trains that term's matrix directly instead of keys and values:

    o_i = softmax(q_i K^T) V + sum_j phi(q_i)^T phi(k_j) v_j^T  ->  softmax(q_i K^T) V + phi(q_i)^T M

Choices where the paper leaves them open or was not at hand: phi is elu(x) + 1, the feature map of linear attention
(Katharopoulos et al. 2020), which is positive as similarities are; M starts at 0, so that training starts from the
backbone itself; each query head has a matrix of its own, "k k"; q is the query as the family's attention function reads
it, turned by rotary positions where there are some.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ptune.backbone import Backbone
from ptune.heads import Batch
from ptune.prompts import Prompts
from ptune.tuning.companions import Accompanied
from ptune.tuning.prefixed import chosen_layers


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


@final
class PrefixMemory(Accompanied):
    """Train a matrix of each attention head that adds to what the head attends to, and the head.

    Args:
        layers: Prompted layers: `all`, `last:N`, or a list of layer numbers from 0.
        lr: Peak learning rate of the matrices; AdamW moves each of their numbers by as much at its first step.
    """

    prompt: Memory

    def __init__(self, layers: str | list[int] = "all", lr: float = 5e-3, **common) -> None:
        super().__init__(lr=lr, **common)
        self.layers = chosen_layers(layers, self.spec.layers)
        self.prompt = Memory(self.spec.heads, [self.spec.kv_sizes[layer][1] for layer in self.layers])

    @property
    def first_layer(self) -> int:
        """The first one of `layers`."""
        return min(self.layers)

    def prepare(self, backbone: Backbone) -> None:
        """Refuse a backbone whose layers would ignore the memory: the same that would ignore a prefix."""
        super().prepare(backbone)
        backbone.require_prefix()

    def prompts(self, batch: Batch) -> Prompts:
        """The matrices of every prompted layer."""
        return Prompts(memory=self.prompt(), layers=self.layers)

    def layer_norms(self) -> dict[str, Tensor]:
        """Norms of each layer's matrices and of their gradient, once there is one."""
        named = dict(zip(self.layers, self.prompt.matrices, strict=True))
        found = {f"prompt_norm/layer_{layer:02d}": value.detach().norm() for layer, value in named.items()}
        return found | {
            f"prompt_grad_norm/layer_{layer:02d}": value.grad.norm()
            for layer, value in named.items()
            if value.grad is not None
        }

    def metadata(self) -> dict[str, str]:
        """As for all methods, and the numbers of the layers: `last:2` and [4, 5] may mean the same."""
        return super().metadata() | {"layers": str(list(self.layers))}
