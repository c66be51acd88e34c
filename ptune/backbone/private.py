"""What ptune needs of transformers and finds under no public name, as read from transformers 5.23.

After an upgrade of transformers, this is the one file to compare with its source.
"""

from typing import Any

from transformers import PreTrainedModel
from transformers.modeling_flash_attention_utils import _flash_attention_forward as flash_attention_forward
from transformers.utils import cached_file

__all__ = ["flash_attention_forward", "has_interface", "implementation_of", "kept_in_fp32", "optional_file", "supports"]


def implementation_of(model: PreTrainedModel | Any) -> str:
    """Name of the attention function that a model runs (`modeling_utils.py`: `set_attn_implementation` sets it)."""
    return str(model.config._attn_implementation)


def has_interface(family: type[PreTrainedModel] | None) -> bool:
    """Whether a family's attention is looked up by name (`AttentionInterface`), not built into its modeling file."""
    return family is not None and family._can_set_attn_implementation()


def supports(family: type[PreTrainedModel] | PreTrainedModel | None, attention: str) -> bool:
    """Whether transformers says that a family runs with `sdpa`, `flex` or `flash` attention."""
    flag = {"sdpa": "_supports_sdpa", "flex": "_supports_flex_attn", "flash": "_supports_flash_attn"}[attention]
    return bool(getattr(family, flag, False))


def kept_in_fp32(model: PreTrainedModel) -> set[str]:
    """Parts of parameter names that a family wants in fp32 in a model of 16 bits."""
    return {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}


def optional_file(repository: str, name: str) -> str | None:
    """Path of a hub repository's file; None where there is none, or no connection to ask for it."""
    return cached_file(
        repository,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
