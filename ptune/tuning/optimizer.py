"""AdamW with a learning rate for each group of tensors."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import AdamW


def adamw(tensors: Mapping[str, Mapping[str, nn.Parameter]], rates: Mapping[str, float], weight_decay: float) -> AdamW:
    """The optimizer of named groups of tensors; those of one dimension are groups of their own, `<group>/1d`.

    Args:
        tensors: the trained tensors of each group by name.
        rates: the peak learning rate of each group.
        weight_decay: decoupled decay (Loshchilov and Hutter 2019) a step and unit of rate; never of biases, scales of
            normalisations and other tensors of one dimension.
    """
    groups: list[dict[str, Any]] = []
    for group, named in tensors.items():
        matrices = [value for value in named.values() if value.ndim > 1]
        vectors = [value for value in named.values() if value.ndim <= 1]
        for name, values, decay in ((group, matrices, weight_decay), (f"{group}/1d", vectors, 0.0)):
            if values:
                groups.append({"name": name, "params": values, "lr": rates[group], "weight_decay": decay})
    return AdamW(groups)
