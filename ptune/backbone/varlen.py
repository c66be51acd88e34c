"""Flash attention by torch's kernel for texts of different lengths, where the package flash-attn is not installed."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from ptune.errors import InputError

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # before torch 2.10
    varlen_attn = None


def varlen_forward(
    query: Float[Tensor, "b t h k"],
    key: Float[Tensor, "b s g k"],
    value: Float[Tensor, "b s g k"],
    mask: Shaped[Tensor, "b s"] | None,
    is_causal: bool,
    softmax_scale: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> Float[Tensor, "b t h k"]:
    """What transformers' `_flash_attention_forward` returns: the attention of queries to the keys that `mask` shows.

    The real tokens of all texts are packed into one row, each text behind its own copy of the prefix's keys, so that no
    product is computed for padding; outputs of padding are 0. The kernel's backward pass has no gradient for its
    log-sum-exp, so prefix and text cannot be attended to apart and merged. Its causal mask is aligned to the lower
    right of a text's queries and keys, as flash attention's is.

    Args:
        query: of the text.
        key: of a prefix, if there is one, and of the text: s is at least t where there is a mask.
        value: as `key`.
        mask: true where a key is no padding; None where there is none.
        is_causal: whether a token sees those before it alone, and all of the prefix.
        softmax_scale: factor of the scores, 1/√k by default.
        sliding_window: the number of nearest tokens that a token sees, itself among them.
        dropout: must be 0, as `softcap` and `s_aux` must not be there: the kernel has none of them.

    Raises:
        InputError: the attention has dropout, a cap of its scores or attention sinks.
    """
    for what, there in {
        "dropout of attention (backbone_dropout)": dropout,
        "cap of scores": softcap,
        "attention sinks": s_aux is not None,
    }.items():
        if there:
            raise InputError(
                f"attention: 'flash' has no {what} without the package flash-attn; install it or use sdpa."
            )
    if query.dtype == torch.float32:
        query, key, value = (x.to(torch.get_autocast_dtype(x.device.type)) for x in (query, key, value))
    (b, t), s = query.shape[:2], key.shape[1]
    seen = torch.ones(b, s, dtype=torch.bool, device=query.device) if mask is None else mask.bool()
    asking = torch.ones(b, t, dtype=torch.bool, device=query.device) if mask is None else seen[:, s - t :]
    q_ends, k_ends = (F.pad(each.sum(1).cumsum(0), (1, 0)).int() for each in (asking, seen))
    left = -1 if sliding_window is None or sliding_window >= s else sliding_window - 1
    assert varlen_attn is not None, "attention_function refuses flash where there is no kernel"
    packed = varlen_attn(
        query[asking],
        key[seen],
        value[seen],
        q_ends,
        k_ends,
        t,
        s,
        scale=softmax_scale,
        window_size=(left, 0 if is_causal else left),
        enable_gqa=query.shape[2] != key.shape[2],
    )
    output = torch.zeros_like(query)
    output[asking] = packed  # type: ignore[assignment]  # a tuple with `return_aux` alone
    return output
