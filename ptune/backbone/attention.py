"""Attention functions that read a prefix, the only ones in ptune.

`transformers` looks attention functions up by name and passes every keyword of `model(**batch, prefix=...)` on to
them. So a prefix is one keyword: no KV cache (which shifts positions, and which gradient checkpointing drops) and
no forked modeling files. Registered here are `ptune_sdpa`, `ptune_eager`, `ptune_flex` and `ptune_fa2`: the library's
own functions on keys and values to which the prefix has been concatenated.
"""

import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Literal, no_type_check

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention
from transformers import MODEL_MAPPING, AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, flash_attention_mask, sdpa_mask

from ptune.backbone.private import flash_attention_forward, has_interface, supports
from ptune.backbone.varlen import varlen_attn, varlen_forward
from ptune.backbone.visitor import Visitor
from ptune.errors import InputError
from ptune.prompts import Prompts

Attention = Literal["sdpa", "eager", "flex", "flash"]
FLASH_ATTN = find_spec("flash_attn") is not None
"""Whether the package flash-attn is installed; torch's own kernel for `flash` has no dropout, no cap and no sinks."""


def _widen(mask: Tensor | None, query: Tensor, p: int, causal: bool) -> Tensor | None:
    """The mask "b 1 t s" (flash: "b s") with p more columns on the left, to which every query attends."""
    if mask is not None:
        return F.pad(mask, (p, 0), value=True if mask.dtype == torch.bool else 0.0)
    if not causal:
        return None
    # No mask means "causal, without padding". There are more keys than queries now, and SDPA would align its own causal
    # mask to the upper left, which hides the text and not the future.
    t = query.shape[2]
    return torch.ones(t, p + t, dtype=torch.bool, device=query.device).tril(p)[None, None]


def _unread(make: Callable) -> Callable:
    """A function that makes masks, and looks into the padding on the CPU alone.

    A batch without padding needs no mask, but to know that of a GPU's tensor the host must wait in every forward pass
    for all that the GPU still has to do.
    """

    def mask(*args, attention_mask: Tensor | None = None, **kwargs) -> Tensor | None:
        if attention_mask is not None and attention_mask.device.type != "cpu":
            kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        return make(*args, attention_mask=attention_mask, **kwargs)

    return mask


def _with_prefix(base: Callable) -> Callable:
    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        prefix: Prompts | Visitor | None = None,
        **kwargs,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of query "b heads t k" to key and value "b h t k" and to the layer's own prefix: "b t heads k"."""
        found = None if prefix is None else prefix.at(module, key, value)
        if isinstance(prefix, Visitor) and prefix.put:
            return query.transpose(1, 2), None  # of the right shape, and thrown away
        if found is None:
            return base(module, query, key, value, attention_mask, **kwargs)
        keys, values, gate = found
        if gate is not None:
            text, weights = base(module, query, key, value, attention_mask, **kwargs)
            apart = kwargs | {"is_causal": False, "position_bias": None, "sliding_window": None}
            prompt, _ = base(module, query, keys, values, None, **apart)
            return text + torch.tanh(gate)[:, None] * prompt, weights
        p = keys.shape[2]
        causal = kwargs.pop("is_causal", None)
        if base is _flash:  # flash attention aligns its own causal mask to the lower right
            mask = None if attention_mask is None else _widen(attention_mask.bool(), query, p, False)
            keys, values = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
            return base(module, query, keys, values, mask, is_causal=causal, **kwargs)
        # Without a mask SDPA reads `module.is_causal`, whose default is True there; eager attends to everything.
        default = base is _sdpa
        causal = bool(getattr(module, "is_causal", default) if causal is None else causal)
        if (bias := kwargs.get("position_bias")) is not None:
            kwargs["position_bias"] = F.pad(bias, (p, 0))
        return base(
            module,
            query,
            torch.cat([keys, key], dim=2),
            torch.cat([values, value], dim=2),
            _widen(attention_mask, query, p, causal),
            is_causal=False,
            **kwargs,
        )

    return attend


def _with_memory(base: Callable) -> Callable:
    def attend(
        module: nn.Module, query: Tensor, *args, prefix: Prompts | Visitor | None = None, **kwargs
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of query "b heads t k" by a function that reads a prefix, plus the layer's own memory."""
        output, weights = base(module, query, *args, prefix=prefix, **kwargs)
        recalled = prefix.recalled(module, query) if isinstance(prefix, Prompts) else None
        return output if recalled is None else output + recalled, weights

    return attend


def _sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs
) -> tuple[Tensor, None]:
    """SDPA; while a model is trained in 16 bits on a CPU, in fp32.

    On a CPU without matrix units (AMX) the backward pass of torch's 16-bit flash attention takes more than ten times as
    long as that of fp32, and half of a training step (torch 2.13; `python experiments/step_parts.py`).
    """
    trained = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if query.device.type != "cpu" or query.dtype == torch.float32 or not trained:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    more = {"attention_mask": attention_mask, "position_bias": kwargs.pop("position_bias", None)}
    more = {name: x.float() if x is not None and x.is_floating_point() else x for name, x in more.items()}
    with torch.autocast("cpu", enabled=False):
        found, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), **more, **kwargs)
    return found.to(query.dtype), None


def _eager(module: nn.Module, *args, **kwargs) -> tuple[Tensor, Tensor | None]:
    """The plain attention function that every modeling file of transformers defines for its own family."""
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


@cache
def _compiled_flex() -> Callable:
    return torch.compile(flex_attention)


def flex_gap(device: torch.device) -> str:
    """Why flex attention cannot train on this device; empty where it can."""
    return "" if device.type == "cuda" else f"flex attention has no backward pass on {device.type} in torch"


def _flex(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    s_aux: Tensor | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Flex attention; `attention_mask` "b 1 t s" is added to the scores.

    It is compiled on a GPU and torch's reference elsewhere; transformers' own would be compiled on the CPU, too.
    """
    if dropout or s_aux is not None:
        what = "attention sinks" if s_aux is not None else "dropout of attention (backbone_dropout)"
        raise InputError(f"attention: 'flex' has no {what}; use sdpa.")
    gap = flex_gap(query.device)
    if gap and torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
        raise InputError(f"attention: {gap}, so it is for inference there; use sdpa.")
    shape = (*query.shape[:3], key.shape[2])
    biases = [x.expand(shape) for x in (position_bias, attention_mask) if x is not None]

    @no_type_check  # torch traces this function, and cannot trace a wrapper that checks its types
    def score_mod(score, b, h, i, j):
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        for bias in biases:
            score = score + bias[b, h, i, j]
        return score

    run = _compiled_flex() if query.is_cuda and not torch.compiler.is_compiling() else flex_attention
    output = run(query, key, value, score_mod=score_mod, scale=scaling, enable_gqa=query.shape[1] != key.shape[1])
    return output.transpose(1, 2), None  # type: ignore[union-attr]


def _flash(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    s_aux: Tensor | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Flash attention; `attention_mask` "b s" is True where a key is a token of the text."""
    t, s = query.shape[2], key.shape[2]
    if s > t and sliding_window is not None and s > sliding_window:
        raise InputError(
            f"attention: 'flash' would hide the prefix behind the sliding window of {sliding_window}; use sdpa."
        )
    if query.dtype == torch.float32 and not torch.is_autocast_enabled(query.device.type):
        raise InputError(
            "attention: 'flash' needs 16 bits; use backbone_dtype: bf16, or --trainer.precision bf16-mixed."
        )
    output = (flash_attention_forward if FLASH_ATTN else varlen_forward)(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attention_mask,
        query_length=t,
        is_causal=bool(getattr(module, "is_causal", True) if is_causal is None else is_causal),
        dropout=dropout,
        softmax_scale=scaling,
        softcap=softcap,
        sliding_window=sliding_window,
        s_aux=s_aux,
        attn_implementation="flash_attention_2",
    )
    return output, None


attend = _with_memory(_with_prefix(_sdpa))
"""For families that have no attention interface: see `ptune.backbone.families`."""

for _name, _base, _mask in (
    ("sdpa", _sdpa, _unread(sdpa_mask)),
    ("eager", _eager, eager_mask),
    ("flex", _flex, eager_mask),
    ("fa2", _flash, flash_attention_mask),  # transformers treats a name with "flash" in it as one of its own
):
    AttentionInterface.register(f"ptune_{_name}", _with_memory(_with_prefix(_base)))
    AttentionMaskInterface.register(f"ptune_{_name}", _mask)


def attention_function(config: PretrainedConfig, attention: Attention) -> str | None:
    """Name of a family's attention function: eager where it has no SDPA, None where its attention is built in.

    Raises:
        InputError: `flex` or `flash`, and the family, the machine or the installation lacks it.
    """
    if attention == "flash" and not torch.cuda.is_available():
        raise InputError("attention: 'flash' needs an NVIDIA GPU, and this machine shows none; use sdpa.")
    if attention == "flash" and not FLASH_ATTN and varlen_attn is None:
        raise InputError("attention: 'flash' needs torch 2.10 or the package flash-attn; install one, or use sdpa.")
    family = MODEL_MAPPING.get(type(config), None)
    family = family[0] if isinstance(family, tuple) else family
    if attention in ("flex", "flash"):
        if not supports(family, attention):
            raise InputError(f"attention: {attention!r} is not there for model type {config.model_type!r}; use sdpa.")
        return {"flex": "ptune_flex", "flash": "ptune_fa2"}[attention]
    if not has_interface(family):
        return None
    return f"ptune_{attention if supports(family, 'sdpa') else 'eager'}"
