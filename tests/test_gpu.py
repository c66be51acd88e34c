"""What is different on a GPU; skipped, with that reason, where there is none."""

import json
from importlib.util import find_spec

import pytest
import torch
from families import distance, text
from methods_table import TABLE, names
from torch.testing import assert_close

from ptune.backbone import Backbone
from ptune.backbone.attention import FLASH_ATTN
from ptune.backbone.varlen import varlen_attn
from ptune.bench import main as bench
from ptune.prompts import Prompts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
flash = pytest.mark.skipif(not FLASH_ATTN and varlen_attn is None, reason="needs torch 2.10 or the package flash-attn")
DEVICE, P = "cuda", 4
WIDE = {"hidden_size": 128, "max_position_embeddings": 512}  # heads of 32: kernels want no less than 16


def there(inputs):
    return {key: value.to(DEVICE) for key, value in inputs.items()}


def hidden_and_gradient(backbone, inputs, kv):
    """Hidden states of the text, and the gradient of the prefix, on the CPU in fp32."""
    leaf = kv.to(DEVICE).requires_grad_()
    hidden = text(backbone.requires_grad_(False)(inputs, Prompts(prefix=leaf)), inputs)
    hidden.pow(2).sum().backward()
    return [tensor.detach().float().cpu() for tensor in (hidden, leaf.grad)]


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "gemma4_text", "deberta-v2", "xlnet", "t5"])
def test_it_is_the_cpu_to_float_error(tiny, batch, family):
    here = Backbone(tiny(family)).eval()
    inputs, kv = batch(), here.keys_values(batch((P,), seed=1)["input_ids"])
    with torch.no_grad():
        expected = here(inputs, Prompts(prefix=kv))
        found = (
            Backbone(tiny(family))
            .eval()
            .to(DEVICE)(there(inputs), Prompts(prefix=tuple(layer.to(DEVICE) for layer in kv)))
        )
    assert_close(text(found.cpu(), inputs), text(expected, inputs), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("attention", ["flex", pytest.param("flash", marks=flash)])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_another_kernel_gives_the_same_hidden_states_and_trains_the_same(tiny, batch, prefix, family, attention):
    inputs, results = there(batch((70, 50, 3))), []
    for function in ("sdpa", attention):
        backbone = Backbone(tiny(family, **WIDE), attention=function, dtype="bf16").to(DEVICE)
        results.append(hidden_and_gradient(backbone, inputs, prefix(backbone.spec, P)))
    for plain, other in zip(*results, strict=True):
        assert distance(other, plain) < 0.05


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the package bitsandbytes")
@pytest.mark.parametrize(("dtype", "near"), [("bf16", 0.05), ("int8", 0.1), ("int4", 0.4)])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_weights_of_fewer_bits_are_near(tiny, batch, prefix, family, dtype, near):
    inputs, results = there(batch()), []
    for precision in ("fp32", dtype):
        backbone = Backbone(tiny(family, **WIDE), dtype=precision).to(DEVICE)
        results.append(hidden_and_gradient(backbone, inputs, prefix(backbone.spec, P)))
    (hidden, gradient), (found, slope) = results
    assert distance(found, hidden) < near
    assert distance(slope, gradient) < 3 * near


@pytest.mark.parametrize("method", [*names(prompt=True, variants=False), "fine-tuning"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_trains_what_is_declared_and_nothing_else(tiny, head, batch, fit, method, precision):
    case = TABLE[method]
    model = case.method(backbone=tiny("bert"), head=head("classify"), lr=0.1, **case.given(P))
    slots = {"slots": (torch.arange(7) < model.slots).expand(3, -1)} if model.slots else {}
    batches = [batch((7, 6, 6), seed=seed, labels=torch.tensor([0, 1, 2]), **slots) for seed in (0, 1)]
    model.configure_model()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    fit(model, batches, accelerator=DEVICE, precision=precision)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value.cpu(), before[name])}
    assert moved == set(model.trained())
    assert {value.dtype for value in model.trained().values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
def test_it_compiles_to_kernels_that_train_the_same(tiny, batch, prefix):
    backbone = Backbone(tiny("llama", **WIDE)).to(DEVICE)
    inputs, kv = there(batch()), prefix(backbone.spec, P)
    expected = hidden_and_gradient(backbone, inputs, kv)
    torch.compiler.reset()
    found = hidden_and_gradient(torch.compile(backbone, fullgraph=True), inputs, kv)
    for one, other in zip(found, expected, strict=True):
        assert distance(one, other) < 1e-2


@pytest.mark.parametrize("family", ["bert", "albert", "xlnet"])
def test_checkpointing_saves_memory(tiny, batch, prefix, family):
    sizes = {"d_model": 128, "n_layer": 8} if family == "xlnet" else WIDE | {"num_hidden_layers": 8}
    inputs, peaks = there(batch((400,) * 8)), []
    for checkpointing in (False, True):
        backbone = Backbone(tiny(family, **sizes), checkpointing=checkpointing).to(DEVICE)
        torch.cuda.reset_peak_memory_stats()
        hidden_and_gradient(backbone, inputs, prefix(backbone.spec, P))
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 0.6 * peaks[0]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_benchmark_of_steps_measures_time_and_memory_there(precision, tmp_path):
    file, rows = tmp_path / "step.json", ["PTuningV2", "PTuningV2-last2-cached", "FineTuning"]
    line = ["step", "--device", "cuda", "--precision", precision, "--rounds", "2", "--tokens", "16"]
    assert bench([*line, "--only", *rows, "--json", str(file)]) == 0
    (found,) = json.loads(file.read_text())["found"]["settings"]
    prompted, cached, tuned = (row["peak_mib"] for row in found["rows"].values())
    assert 0 < cached < prompted < tuned
