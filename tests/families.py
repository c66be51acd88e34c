"""The model families that tests run on: their tiny sizes, what each can do, and how a prefix is cut to its layers."""

import pytest
from transformers import AutoModel

from ptune.prompts import Prompts

VOCABULARY, POSITIONS, PAD = 60, 48, 1
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
}
TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 0, "pad_token_id": PAD, "eos_token_id": 2}
GPT_SIZES = {"n_embd": 32, "n_layer": 3, "n_head": 4}
BART_SIZES = {"d_model": 32} | {
    f"{part}_{size}": value
    for part in ("encoder", "decoder")
    for size, value in (("layers", 3), ("attention_heads", 4), ("ffn_dim", 48))
}
GEMMA_SIZES = {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "num_kv_shared_layers": 1,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
}
CONFIGS = {
    "albert": SIZES | {"embedding_size": 16},
    "bart": BART_SIZES | {"max_position_embeddings": POSITIONS},
    "bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "deberta": SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    "deepseek_v2": SIZES
    | {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 3},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": POSITIONS},
    "electra": SIZES | {"embedding_size": 16},
    "gemma": SIZES | {"num_key_value_heads": 1, "head_dim": 16},
    "gemma2": SIZES | {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4},
    # Of text and pictures, as Gemma 3 is from 4B on; its windows are wider than any text here.
    "gemma3": {
        "text_config": SIZES | TOKENS | {"num_key_value_heads": 2, "head_dim": 16, "attention_dropout": 0.5},
        "vision_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        | {"image_size": 28, "patch_size": 14},
    },
    "gemma3_text": SIZES
    | {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4}
    | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    # Layers 1 and 2 have keys of another size; layer 2 has none of its own, it takes layer 1's.
    "gemma3n_text": SIZES | GEMMA_SIZES | {"laurel_rank": 4, "altup_num_inputs": 2},
    "gemma4_text": SIZES
    | GEMMA_SIZES
    | {"global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": True},
    "gpt2": GPT_SIZES | {"n_positions": POSITIONS},
    "gpt_oss": SIZES | {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4},
    "llama": SIZES | {"num_key_value_heads": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mistral": SIZES | {"num_key_value_heads": 2, "sliding_window": 3},
    "mixtral": SIZES | {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4},
    "modernbert": SIZES | {"cls_token_id": 3, "sep_token_id": 4, "local_attention": 4},
    "openai-gpt": GPT_SIZES | {"n_positions": POSITIONS},
    "opt": SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "qwen3": SIZES | {"num_key_value_heads": 2, "head_dim": 16},
    "t5": {"d_model": 32, "num_layers": 3, "num_heads": 4, "d_kv": 16, "d_ff": 48},
    "whisper": BART_SIZES | {"num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": POSITIONS},
    "xlnet": {"d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 48},
}
"""Sizes of the tiny model of a model type; those of types that are not here are `SIZES`."""

LAYERS = range(3)
GEMMAS = ("gemma2", "gemma3_text", "gemma3n_text")
CAUSAL = ("gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen3", "gemma", "gemma3", *GEMMAS)
CACHED = (*CAUSAL, "bert", "roberta", "electra", "camembert", "xlm-roberta", "ernie")
"""Families with a KV cache, the other route of a prefix."""
OWN = ("openai-gpt", "xlnet", "deberta", "deberta-v2", "mpnet")
"""Families with an attention of their own: no SDPA and no attention interface."""
CACHELESS = (*OWN, "albert", "distilbert", "modernbert", "t5", "bart")
FAMILIES = (*CACHED, *CACHELESS)
SOME = ("bert", "llama", "xlnet")
"""An attention looked up by name, one with rotary positions and fewer heads with keys, and one that is built in."""
UNSHIFTED = ("xlnet", "deberta-v2", "t5", "bart")
"""Families that take no positions from outside."""
UNCUT = ("xlnet", "albert", "t5", "gemma3n_text", "gemma4_text")
"""Families whose layers cannot begin with hidden states that are known, so that no prompt enters at a middle one."""
UNSHARED = {key: {"num_kv_shared_layers": 0} for key in GEMMAS[2:]}
"""Sizes with which no layer reads another layer's keys."""
EAGER = (
    "bert",
    "roberta",
    "electra",
    "gpt2",
    "llama",
    "opt",
    "distilbert",
    "modernbert",
    "mistral",
    "albert",
    "splinter",
)
PAIRS = [(family, "sdpa") for family in (*FAMILIES, "splinter")] + [(family, "eager") for family in EAGER]
"""Families and attention functions; a family without SDPA runs its eager one."""


def often(names, of=SOME):
    """The names as parameters, of which those that are not in `of` are further cases (deep)."""
    return [name if name in of else pytest.param(name, marks=pytest.mark.deep) for name in names]


def text(hidden, batch):
    """The hidden states of the text, padding left out."""
    return hidden[batch["attention_mask"].bool()]


def distance(one, other):
    """Of two tensors, relative to the second."""
    return float((one - other).norm() / other.norm())


def prompted(backbone, kv, **rest):
    """Prompts of keys and values as large as the largest layer's, cut to the size of each where layers differ."""
    sizes = backbone.spec.kv_sizes
    if len(set(sizes)) > 1:
        chosen = (sizes[layer] for layer in rest.get("layers", LAYERS))
        kv = tuple(layer[:, :, :h, :, :k] for layer, (h, k) in zip(kv, chosen, strict=True))
    return Prompts(prefix=kv, **rest)


def automodel(path, family, attention="sdpa"):
    """What transformers loads: of an encoder-decoder, the encoder. The soft cap of gemma2 is eager only."""
    attention = "eager" if family in (*OWN, "gemma2", "bloom", "splinter") else attention
    model = AutoModel.from_pretrained(path, attn_implementation=attention).eval()
    return model.get_encoder() if model.config.is_encoder_decoder else model
