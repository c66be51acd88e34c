"""What every test shares: no network, one thread, and tiny pretrained checkpoints of many families."""

import gc
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
from families import CONFIGS, PAD, SIZES, TOKENS, VOCABULARY
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
gc.freeze()  # what the libraries have made is not searched for garbage again and again
transformers.utils.logging.disable_progress_bar()


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=1, help="how many runs are killed at a random moment")
    parser.addoption("--fuzz", type=int, default=0, metavar="N", help="N fuzzed inputs of each kind, and every attack")


def pytest_configure(config):
    """With --jaxtyping-packages, wrappers stand between the constructors whose arguments Lightning collects."""
    if not config.getoption("--jaxtyping-packages"):
        return
    collect = parsing.collect_init_args

    def collect_through_wrappers(frame, path_args, inside=False, classes=()):
        while inside and "jaxtyping" in frame.f_code.co_filename:
            frame = frame.f_back
        return collect(frame, path_args, inside, classes)

    parsing.collect_init_args = collect_through_wrappers


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Writes a random checkpoint once a session: tiny("bert", num_hidden_layers=2) -> its folder.

    Every weight is random, biases too, and large enough that attention is far from uniform. `pooler=False` leaves out
    the pooler's weights, as RoBERTa's checkpoints do; `lm=True` writes the family's language model; `std` is the one
    of the weights: half as large in a model 4 times as wide, its attention is as sharp. The tokenizer beside it reads
    "w0 w1 ..." and nothing else.
    """
    folders = {}

    def write(model_type, pooler=True, seed=0, lm=False, std=0.1, **sizes):
        key = (model_type, pooler, seed, lm, std, str(sorted(sizes.items())))
        if key not in folders:
            config = AutoConfig.for_model(model_type, **CONFIGS.get(model_type, SIZES) | TOKENS | sizes)
            auto = (AutoModelForMaskedLM if type(config) in MASKED else AutoModelForCausalLM) if lm else AutoModel
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = auto.from_config(config, **({} if pooler else {"add_pooling_layer": False}))
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for value in model.parameters():
                    value.add_(torch.empty_like(value).normal_(std=std, generator=generator))
            folders[key] = str(tmp_path_factory.mktemp(model_type))
            model.save_pretrained(folders[key])
            words = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", *(f"w{i}" for i in range(VOCABULARY - 4))]
            tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folders[key])
        return folders[key]

    return write


@pytest.fixture(scope="session")
def frozen(tiny):
    """Backbones of tiny checkpoints that no test changes, each loaded once a session: frozen("bert", "eager")."""
    from ptune.backbone import Backbone

    @cache
    def load(family, attention="sdpa"):
        return Backbone(tiny(family), attention=attention).requires_grad_(False)

    return load


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
    "multi_label": HeadSpec("toy/multi_label", "multi_label", ("a", "b", "c"), ("micro_f1",), "micro_f1"),
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
