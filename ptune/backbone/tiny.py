"""A tiny random model of a family, made from its config alone: no network, and small enough to try everything on."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel

from ptune.backbone.lm import auto
from ptune.backbone.pretrained import describe
from ptune.errors import InputError, first_line

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 64,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
POSITIONS = {"max_position_embeddings": 64}
GROUPS = POSITIONS | {"num_key_value_heads": 2, "head_dim": 8}
GEMMA = {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8}
WINDOWS = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
SIGHT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
PICTURES = {"vision_config": SIGHT | {"num_key_value_heads": 2, "image_size": 28, "patch_size": 14}}
FAMILIES: dict[str, dict] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "albert"), POSITIONS),
    **dict.fromkeys(("distilbert", "mpnet", "deberta", "deberta-v2", "modernbert", "eurobert"), POSITIONS),
    **dict.fromkeys(("megatron-bert", "rembert", "roformer", "esm", "nomic_bert", "big_bird", "longformer"), POSITIONS),
    "xlnet": {"d_head": 8},
    **dict.fromkeys(("t5", "mt5", "bart", "mbart"), POSITIONS),
    **dict.fromkeys(("openai-gpt", "gpt2", "gpt_neox", "opt", "bloom", "falcon", "mpt", "phi"), POSITIONS),
    "gptj": POSITIONS | {"rotary_dim": 4},
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3", "stablelm", "starcoder2"), GROUPS),
    **dict.fromkeys(("qwen2", "qwen3", "olmo2", "granite", "smollm3"), GROUPS),
    "gpt_oss": GROUPS | {"num_local_experts": 4},
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), GROUPS),
    "gemma3n_text": GROUPS | WINDOWS | GEMMA | {"num_kv_shared_layers": 2, "laurel_rank": 4, "altup_num_inputs": 2},
    "gemma4_text": GROUPS | WINDOWS | GEMMA | {"global_head_dim": 16},
    "gemma3": PICTURES | {"text_config": SIZES | GROUPS},
    "gemma4": PICTURES
    | {"text_config": SIZES | GROUPS | WINDOWS | GEMMA | {"global_head_dim": 16}, "audio_config": None},
    "mamba": POSITIONS,
}
"""The families of the page, by model type, and the sizes of the tiny model that differ from `SIZES`."""


def tiny(model_type: str, folder: str) -> str:
    """Write a random model of this type and the sizes above into `folder`, its language model into `folder`/lm.

    Raises:
        InputError: the family's config or model does not take the sizes.
    """
    try:
        config = AutoConfig.for_model(model_type, **SIZES | FAMILIES.get(model_type, POSITIONS))
        torch.manual_seed(0)
        model = AutoModel.from_config(config, trust_remote_code=False)
    except Exception as error:  # of any kind: each family checks its sizes in its own way
        raise InputError(
            f"model type {model_type!r}: no tiny model can be made of it ({first_line(error)}); give a folder or a hub "
            "id."
        ) from error
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # no weight is 0, so that attention is not uniform and every weight has a gradient
        for value in model.parameters():
            value.add_(torch.empty_like(value).normal_(std=0.1, generator=generator))
    model.save_pretrained(folder)
    spec = describe(folder)
    if spec.lm is not None:
        auto(spec).from_config(config, trust_remote_code=False).save_pretrained(Path(folder, "lm"))
    return folder
