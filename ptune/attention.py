"""The only place a prefix meets attention.

`transformers` lets attention functions be registered by name and hands every keyword of `model(**batch, prefix=...)`
down to them. So a prefix is one keyword: no KV cache (whose positions shift and which gradient checkpointing drops), no
forked modeling files. Registered here are `ptune_sdpa` and `ptune_eager`: the library's own functions on keys and
values to which the prefix has been concatenated.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from ptune.prompts import Prompts


@dataclass(frozen=True)
class Visitor:
    """Travels as `prefix=` through one forward pass and notes the attention modules in the order they run.

    With it the backbone numbers its layers (DistilBERT does not), proves that every layer is reached by the keyword,
    and reads the keys and values of real tokens (`init: text`).
    """

    modules: list[nn.Module] = field(default_factory=list)
    applications: list[int | None] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    application: int | None = None
    """As in `Prompts`."""

    def at(self, module: nn.Module, key: Tensor, value: Tensor) -> None:
        """Note the module and its keys and values "b h t k"; add no prefix."""
        self.modules.append(module)
        self.applications.append(self.application)
        self.keys.append(key)
        self.values.append(value)


def _widen(mask: Tensor | None, query: Tensor, p: int, causal: bool) -> Tensor | None:
    """The mask "b 1 t s" with p more columns on the left, which every query sees."""
    if mask is not None:
        return F.pad(mask, (p, 0), value=True if mask.dtype == torch.bool else 0.0)
    if not causal:
        return None
    # No mask means "causal and nothing padded". Keys are now longer than queries, and SDPA's own causal mask would be
    # aligned to the upper left, cutting off the text instead of letting the prefix be seen.
    t = query.shape[2]
    return torch.ones(t, p + t, dtype=torch.bool, device=query.device).tril(p)[None, None]


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
        if found is None:
            return base(module, query, key, value, attention_mask, **kwargs)
        keys, values, gate = found
        if gate is not None:
            text, weights = base(module, query, key, value, attention_mask, **kwargs)
            apart = kwargs | {"is_causal": False, "position_bias": None}
            prompt, _ = base(module, query, keys, values, None, **apart)
            return text + torch.tanh(gate)[:, None] * prompt, weights
        p = keys.shape[2]
        causal = kwargs.pop("is_causal", None)
        # Without a mask SDPA asks the module and takes it for causal where it does not say; eager sees everything.
        silent = base is sdpa_attention_forward
        causal = bool(getattr(module, "is_causal", silent) if causal is None else causal)
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


def _eager(module: nn.Module, *args, **kwargs) -> tuple[Tensor, Tensor | None]:
    """The plain attention function that every modeling file of transformers defines for its own family."""
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


attend = _with_prefix(sdpa_attention_forward)
"""For families that have no attention interface: see `ptune.backbones`."""

for _name, _base, _mask in (("sdpa", sdpa_attention_forward, sdpa_mask), ("eager", _eager, eager_mask)):
    AttentionInterface.register(f"ptune_{_name}", _with_prefix(_base))
    AttentionMaskInterface.register(f"ptune_{_name}", _mask)
