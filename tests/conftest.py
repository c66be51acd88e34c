"""What every test shares: no network, one thread, and tiny pretrained checkpoints of many families."""

import os
import tempfile
from functools import cache
from inspect import signature

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ["PTUNE_CACHE"] = tempfile.mkdtemp(prefix="ptune-tests-")

import lightning as L
import peft
import pytest
import torch
import transformers
from lightning.pytorch.utilities import parsing
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import MODEL_FOR_MASKED_LM_MAPPING as MASKED
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertForSequenceClassification,
    DynamicCache,
    PreTrainedTokenizerFast,
)

from ptune.tasks.spec import HeadSpec

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()

collect_init_args = parsing.collect_init_args


def collect_through_wrappers(frame, path_args, inside=False, classes=()):
    """With --jaxtyping-packages, wrappers stand between the constructors whose arguments Lightning collects."""
    while inside and "jaxtyping" in frame.f_code.co_filename:
        frame = frame.f_back
    return collect_init_args(frame, path_args, inside, classes)


parsing.collect_init_args = collect_through_wrappers

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
FAMILIES = {
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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Writes a random checkpoint once a session: tiny("bert", num_hidden_layers=2) -> its folder.

    Every weight is random, biases too, and large enough that attention is far from uniform. `pooler=False` leaves out
    the pooler's weights, as RoBERTa's checkpoints do; `lm=True` writes the family's language model. The tokenizer
    beside it reads "w0 w1 ..." and nothing else.
    """
    folders = {}

    def write(model_type, pooler=True, seed=0, lm=False, **sizes):
        key = (model_type, pooler, seed, lm, str(sorted(sizes.items())))
        if key not in folders:
            config = AutoConfig.for_model(model_type, **FAMILIES.get(model_type, SIZES) | TOKENS | sizes)
            auto = (AutoModelForMaskedLM if type(config) in MASKED else AutoModelForCausalLM) if lm else AutoModel
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = auto.from_config(config, **({} if pooler else {"add_pooling_layer": False}))
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for value in model.parameters():
                    value.add_(torch.empty_like(value).normal_(std=0.1, generator=generator))
            folders[key] = str(tmp_path_factory.mktemp(model_type))
            model.save_pretrained(folders[key])
            words = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", *(f"w{i}" for i in range(VOCABULARY - 4))]
            tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folders[key])
        return folders[key]

    return write


def batch_of(lengths=(7, 5, 3), side="right", seed=0, **columns):
    """Random texts of these lengths, padded on one side."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        start = 0 if side == "right" else max(lengths) - length
        ids[row, start : start + length] = torch.randint(5, VOCABULARY, (length,), generator=generator)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()} | columns


def prefix_of(spec, length=4, rows=1, layers=None, seed=0):
    """Random keys and values for all layers, or for `layers` of them: "l two b h p k", h and k the largest layer's."""
    heads, sizes = zip(*spec.kv_sizes, strict=True)
    shape = (layers or spec.layers, 2, rows, max(heads), length, max(sizes))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cache_of(model, prefix=(), rows=1):
    """A KV cache that holds a prefix for so many rows, by the name that the model takes it by."""
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(prefix):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"  # before transformers 5.24
    return {name: cache}


@cache
def peft_gap():
    """Why PEFT's prefixes cannot be read with a head of this transformers; empty where they can."""
    model = BertForSequenceClassification(BertConfig(**SIZES | TOKENS))
    model = peft.get_peft_model(model, peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=1))
    try:
        model(input_ids=torch.tensor([[5]]))
    except ValueError as error:  # PEFT 0.21 looks for `past_key_values` in a signature, `cache` since transformers 5.24
        return str(error)
    return ""


def pytest_runtest_setup(item):
    if item.get_closest_marker("peft_prefix") and peft_gap():
        pytest.skip(f"PEFT {peft.__version__} with transformers {transformers.__version__}: {peft_gap()}")


KINDS = {
    "classify": HeadSpec("toy/classify", "classify", ("no", "yes", "maybe"), ("accuracy",), "accuracy"),
    "regress": HeadSpec("toy/regress", "regress", (), ("pearson",), "pearson"),
    "choice": HeadSpec("toy/choice", "choice", (), ("accuracy",), "accuracy"),
    "span": HeadSpec("toy/span", "span", (), ("f1",), "f1"),
    "tag": HeadSpec("toy/tag", "tag", ("O", "B-X", "I-X"), ("accuracy",), "accuracy"),
}


@pytest.fixture
def batch():
    """See `batch_of`."""
    return batch_of


@pytest.fixture
def prefix():
    """See `prefix_of`."""
    return prefix_of


@pytest.fixture
def kv_cache():
    """See `cache_of`."""
    return cache_of


@pytest.fixture
def head():
    """A HeadSpec of each kind: head("span")."""
    return KINDS.__getitem__


@pytest.fixture
def sdpa_keys(monkeypatch):
    """The number of keys in each call of SDPA, in order."""
    lengths, function = [], F.scaled_dot_product_attention

    def spy(query, key, *args, **kwargs):
        lengths.append(key.shape[2])
        return function(query, key, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return lengths


@pytest.fixture
def trainer(tmp_path):
    """A Trainer on the CPU without loggers, bars or summaries: trainer(max_steps=1)."""

    def build(**options):
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
        return L.Trainer(**{"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path} | quiet | options)

    return build


@pytest.fixture
def fit(trainer):
    """Trains a model on batches, one step each: fit(model, batches) -> its Trainer."""

    def run(model, batches, **options):
        runner = trainer(**{"max_epochs": 1, "num_sanity_val_steps": 0, "log_every_n_steps": 1} | options)
        runner.fit(model, DataLoader(batches, batch_size=None), DataLoader(batches[:1], batch_size=None))
        return runner

    return run
