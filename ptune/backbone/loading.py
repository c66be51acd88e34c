"""Loading a backbone: its config, its class, its precision, and what its checkpoint must hold."""

import copy
import hashlib
import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoModel,
    AutoModelForTextEncoding,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import get_verbosity, set_verbosity, set_verbosity_error

from ptune.backbone.attention import Attention, attention_function
from ptune.backbone.casts import keep_casts
from ptune.backbone.families import adapt
from ptune.backbone.lm import LMHead, load_language_model
from ptune.backbone.pretrained import BackboneSpec, Dtype, origin
from ptune.backbone.private import kept_in_fp32
from ptune.backbone.traits import needs_other_input
from ptune.errors import InputError, first_line


@final
@dataclass(frozen=True)
class Loaded:
    """A model without head as its checkpoint says, in eval mode, that reads `prefix=`."""

    model: PreTrainedModel
    lm: LMHead | None
    missing: Collection[str]
    """Names of the pooler's weights that the checkpoint lacks, which are random."""


def load_model(spec: BackboneSpec, dropout: bool, attention: Attention, dtype: Dtype, lm: bool) -> Loaded:
    """The model behind a spec; the arguments are those of `Backbone`.

    Raises:
        InputError: its files cannot be read, it lacks weights, or it needs another input besides token ids.
    """
    config = copied(spec.config, dropout)
    # Of an encoder-decoder, the encoder: a decoder would need a text of its own. Some have a class and checkpoints for
    # it alone (T5, whose encoders' configs no longer say what they are part of: the class of the config does).
    whole = type(config).is_encoder_decoder
    auto = AutoModelForTextEncoding if whole and type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
    options: dict[str, Any] = {
        **origin(spec.name),
        "config": config,
        "attn_implementation": attention_function(config, attention),
        "use_safetensors": True,
        "trust_remote_code": False,  # None would ask on stdin
        "output_loading_info": True,
        **precision(dtype),
    }
    head = None
    try:
        with without_report():
            if lm:
                model, head, found = load_language_model(spec, **options)
            else:
                model, found = auto.from_pretrained(**options)
    except InputError:
        raise
    except Exception as error:  # of any kind: transformers checks neither the config's values nor the file of weights
        raise InputError(
            f"backbone {spec.name!r} cannot be loaded: {first_line(error)} ({type(error).__name__}); give the folder "
            "of a complete saved model."
        ) from error
    missing = [key for key in found["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise InputError(
            f"backbone {spec.name!r}: its checkpoint lacks {len(missing)} weights (first: {missing[0]!r}), which "
            "would be random; give a complete checkpoint."
        )
    model = model.get_encoder() if whole else model
    if model.main_input_name != "input_ids":
        raise InputError(needs_other_input(spec, model.main_input_name))
    try:
        model.get_input_embeddings()
    except NotImplementedError as error:
        raise InputError(f"{spec.who} has no word embeddings; choose a text encoder or decoder.") from error
    adapt(model, config.model_type)
    if not dropout:
        quiet_routers(model)
    if dtype == "fp32":
        keep_casts(model)
    else:
        lower(model)
    keep_layout(model)
    return Loaded(model, head, found["missing_keys"])


def recompute(model: PreTrainedModel, spec: BackboneSpec) -> None:
    """Let a model recompute its activations in the backward pass; InputError where it cannot."""
    # The second is its name before transformers 5.23.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise InputError(f"checkpointing: {spec.who} cannot recompute its activations; leave it out.") from error
    model.disable_input_require_grads()  # a need of reentrant checkpointing: gradients that nothing reads


def fingerprint(model: PreTrainedModel, dtype: Dtype) -> str:
    """16 hex digits of names, shapes and the first values of all weights: the same weights, the same backbone.

    The pooler is left out: it is random where the checkpoint lacks it, and a language model is loaded without it, whose
    prompts read the same layers. Other weights than fp32 say so.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if name.startswith("pooler."):
            continue
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.flatten()[:256].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16] + ("" if dtype == "fp32" else f"-{dtype}")


@contextmanager
def without_report() -> Iterator[None]:
    """Silence transformers' report of missing weights.

    It advises to train them. Here a missing weight is an InputError, and a missing pooler is not used.
    """
    level = get_verbosity()
    set_verbosity_error()
    try:
        yield
    finally:
        set_verbosity(level)


def copied(config: PretrainedConfig, dropout: bool) -> PretrainedConfig:
    """A copy of a config, without a KV cache and, unless `dropout`, with every dropout probability 0.

    A copy, because models that share a config share its attention implementation. Dropout is set before the model
    exists, which reaches a probability kept as a float as well as `nn.Dropout`.
    """
    config = copy.deepcopy(config)
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]  # Gemma 3: text and pictures
    for part in filter(None, parts):
        part.use_cache = False
        if not dropout:
            for key, value in part.to_dict().items():
                if "drop" in key and isinstance(value, float):
                    setattr(part, key, 0.0)
    return config


def quiet_routers(model: nn.Module) -> None:
    """Turn off the noise of routers of experts, which is drawn in train mode as dropout is (Switch Transformers, DBRX).

    On the modules, since PhiMoE's `router_jitter_noise` in the config is a threshold that it needs in eval mode, too.
    """
    for module in model.modules():
        for name in {"jitter_noise", "moe_jitter_eps"} & vars(module).keys():
            setattr(module, name, 0.0)


def precision(dtype: Dtype) -> dict[str, Any]:
    """Keywords of `from_pretrained` that load weights in `dtype`.

    `int8` is LLM.int8() (Dettmers et al. 2022), `int4` the NF4 of QLoRA (Dettmers et al. 2023), both of bitsandbytes,
    for the matrices of linear layers; all other weights are bf16 then.

    Raises:
        InputError: bitsandbytes or accelerate is not installed.
    """
    if dtype in ("fp32", "bf16"):
        return {"dtype": torch.float32 if dtype == "fp32" else torch.bfloat16}
    # bitsandbytes warns of a cast to fp16 at every product, and at its import where an optional kernel is missing.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which bitsandbytes uses
            import accelerate  # noqa: F401  transformers needs it
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


def lower(model: PreTrainedModel) -> None:
    """Cast to bf16 the parameters that `from_pretrained` leaves in fp32: those outside of layers (XLNet, DeBERTa)."""
    kept = kept_in_fp32(model)
    for name, value in model.named_parameters():
        if value.dtype == torch.float32 and not any(part in name for part in kept):
            value.data = value.data.bfloat16()


def keep_layout(model: nn.Module) -> None:
    """Keep bitsandbytes' int4 weights in the layout that they were loaded in.

    On a CPU with AVX512-BF16 its linear layers pack their weights in place in the first forward pass in eval mode
    (`Linear4bit.forward`, bitsandbytes 0.48 on), and no training step runs on packed weights. int8 has no such path.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
