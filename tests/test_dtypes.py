"""A frozen backbone in bf16, int8 or int4, under prompts and heads in fp32."""

import importlib
import importlib.util
import sys

import pytest
import torch
from families import FAMILIES, distance, prompted, text
from methods_table import TABLE, names
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.methods.fine_tuning import FineTuning
from ptune.prompts import Prompts

P = 4
BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
quantized = pytest.mark.skipif(not BITSANDBYTES, reason="bitsandbytes is not installed (ptune[quantized])")
each_dtype = pytest.mark.parametrize(
    "dtype", ["bf16", *(pytest.param(dtype, marks=quantized) for dtype in ("int8", "int4"))]
)


def hidden_and_gradient(backbone, inputs, kv):
    """The text's hidden states under a prefix, and the prefix's gradient."""
    leaf = kv.clone().requires_grad_()
    hidden = text(backbone.requires_grad_(False)(inputs, prompted(backbone, leaf)), inputs)
    hidden.pow(3).mean().backward()
    return hidden.detach(), leaf.grad


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_under_a_prefix_is_fp32_to_its_own_precision_in_every_family(tiny, batch, prefix, family):
    """The yardstick is this machine's own: the error of bf16 without a prefix."""
    inputs, full, half = batch(), Backbone(tiny(family)), Backbone(tiny(family), dtype="bf16")
    assert {value.dtype for value in half.model.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        plain = distance(*(text(backbone(inputs), inputs) for backbone in (half, full)))
    assert 1e-4 < plain < 0.03
    kv = 0.3 * prefix(full.spec, P)  # attention is not as sharp then; T5 and Gemma 4 do not scale it
    expected, found = (hidden_and_gradient(backbone, inputs, kv) for backbone in (full, half))
    assert {tensor.dtype for tensor in found} == {torch.float32}
    assert 1e-4 < distance(found[0], expected[0]) < 3 * plain + 1e-3
    assert distance(found[1], expected[1]) < 12 * plain + 1e-3
    assert half.pooling == full.pooling


WIDE = {"hidden_size": 128, "intermediate_size": 128}
"""Sizes with which a block of 64 weights, which share a scale in int4, lies in one row of a matrix."""
WIDER = {
    "gpt2": {"n_embd": 128},
    "t5": {"d_model": 128, "d_ff": 128},
    "xlnet": {"d_model": 128, "d_inner": 128},
    "opt": {"hidden_size": 128, "ffn_dim": 128, "word_embed_proj_dim": 128},
    "gemma3_text": WIDE | {"head_dim": 32},
}
"""Of the families that name them otherwise."""


@quantized
@pytest.mark.parametrize(("dtype", "near"), [("int8", 0.05), ("int4", 0.4)])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "deberta", "xlnet", "t5", "modernbert"])
def test_quantized_weights_are_smaller_and_near(tiny, batch, prefix, family, dtype, near):
    path, inputs = tiny(family, std=0.05, **WIDER.get(family, WIDE)), batch()
    full, small = Backbone(path), Backbone(path, dtype=dtype)
    kv = 0.3 * prefix(full.spec, P)  # attention is not as sharp then; T5 and Gemma 4 do not scale it
    expected, found = (hidden_and_gradient(backbone, inputs, kv) for backbone in (full, small))
    assert {tensor.dtype for tensor in found} == {torch.float32}
    assert 1e-3 < distance(found[0], expected[0]) < near
    assert distance(found[1], expected[1]) < 3 * near
    assert small.pooling == full.pooling
    sizes = [sum(value.nbytes for value in backbone.model.parameters()) for backbone in (small, full)]
    assert sizes[0] < 0.5 * sizes[1]


@pytest.mark.parametrize("family", [*FAMILIES, "roformer", "bloom", "falcon", "mpt", "mixtral"])
def test_traits_are_measured_alike_in_every_precision(tiny, family):
    full = Backbone(tiny(family)).traits
    for dtype in ("bf16", "int8", "int4") if BITSANDBYTES else ("bf16",):
        small = Backbone(tiny(family), dtype=dtype).traits
        for trait in ("prefix_gap", "first_position", "causal", "packing", "shifts"):
            assert getattr(small, trait) == getattr(full, trait), (dtype, trait)
        assert small.padding_mode in (full.padding_mode, "aligned"), "aligned is right for every family"


@pytest.mark.parametrize(
    ("dtype", "near"),
    [("bf16", 0.05), pytest.param("int8", 0.1, marks=quantized), pytest.param("int4", 0.8, marks=quantized)],
)
@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "gpt2", "opt", "llama", "xlnet", "gemma3_text"])
def test_a_language_model_of_fewer_bits_gives_near_scores_and_a_gradient(tiny, batch, prefix, family, dtype, near):
    path = tiny(family, lm=True, **({"std": 0.05} | WIDER.get(family, WIDE) if dtype != "bf16" else {}))
    inputs, found = batch(answer_at=torch.tensor([[1], [2], [1]])), []
    for precision in ("fp32", dtype):
        backbone = Backbone(path, dtype=precision, lm=True).requires_grad_(False)
        kv, words = (0.3 * prefix(backbone.spec, P)).requires_grad_(), torch.tensor([5, 6, 7])
        scores = backbone.lm_scores(backbone(inputs, prompted(backbone, kv))[:, 1], words)
        scores.sum().backward()
        assert scores.dtype == torch.float32
        assert kv.grad.any()
        with torch.no_grad():
            plain = backbone.lm_scores(backbone(inputs)[:, 1], words)
        found.append((scores.detach(), plain))
    (expected, unprompted), (fewer, plain) = found
    if dtype == "bf16":
        assert distance(fewer, expected) < 3 * distance(plain, unprompted) + 1e-3, "bf16 alone, on this machine"
    assert distance(fewer, expected) < near


@pytest.fixture
def build(tiny, head):
    """A model with its weights loaded."""

    def make(method, dtype, family="bert"):
        torch.manual_seed(0)
        case, common = TABLE[method], {"backbone": tiny(family), "head": head("classify"), "lr": 0.1}
        model = case.method(**common, backbone_dtype=dtype, **case.given(P))
        model.configure_model()
        return model

    return make


def rows(batch):
    """A batch with P slots behind the first token."""
    slots = torch.zeros(3, 7, dtype=torch.bool)
    slots[:, 1 : 1 + P] = True
    return batch(lengths=(7, 6, 6), labels=torch.tensor([0, 1, 2]), slots=slots)


def inputs_of(model, batch):
    """`rows`, with slots for a method that fills some."""
    return rows(batch) if model.slots else {k: v for k, v in rows(batch).items() if k != "slots"}


@each_dtype
@pytest.mark.parametrize("method", names(frozen=True))
def test_what_is_trained_is_fp32_and_moves_and_the_backbone_does_not(build, fit, batch, method, dtype):
    model = build(method, dtype)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trained = model.trained()
    assert {value.dtype for value in trained.values()} == {torch.float32}
    runner = fit(model, [inputs_of(model, batch)] * 2)  # from the second step on, what stands behind a zero gate moves
    assert {name for name, value in model.named_parameters() if not torch.equal(value, before[name])} == set(trained)
    states = runner.optimizers[0].state.values()
    assert {state["exp_avg"].dtype for state in states} == {torch.float32}


@each_dtype
def test_saved_prompts_say_the_precision_they_were_trained_for(build, batch, tmp_path, dtype):
    model, inputs = build("prefix", dtype).eval(), rows(batch)
    model.save_prompts(tmp_path / "prompts")
    again = build("prefix", dtype).eval()
    again.prompt.encoder.flat.data.zero_()
    again.load_prompts(tmp_path / "prompts")
    with torch.no_grad():
        assert torch.equal(again(inputs), model(inputs))
    with pytest.raises(InputError, match=rf"fingerprint is \w+-{dtype} there and \w+ here"):
        build("prefix", "fp32").load_prompts(tmp_path / "prompts")


@quantized
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_an_eval_pass_on_a_cpu_with_avx512_bf16_changes_no_weight_and_training_goes_on(
    tiny, batch, prefix, monkeypatch, dtype
):
    """bitsandbytes packs int4 weights in place there; the flag is what its layers find on such a CPU."""
    modules = importlib.import_module("bitsandbytes.nn.modules")
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: True)
    assert modules.Linear4bit(64, 64).support_avx512bf16_for_cpu
    backbone = Backbone(tiny("bert", hidden_size=128, intermediate_size=128), dtype=dtype).requires_grad_(False)
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    kv = prefix(backbone.spec, P).requires_grad_()
    with torch.no_grad():
        validated = backbone.eval()(batch(), Prompts(prefix=kv))
    trained = backbone.train()(batch(), Prompts(prefix=kv))
    trained.pow(3).mean().backward()
    assert kv.grad.any()
    assert distance(validated, trained.detach()) < 0.05
    after = backbone.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.parametrize("how", ["autocast", "backbone_dtype"])
def test_attention_is_trained_in_fp32_on_a_cpu_and_evaluated_in_16_bits(tiny, batch, prefix, monkeypatch, how):
    full, inputs = Backbone(tiny("bert")).requires_grad_(False), batch()
    kv = 0.3 * prefix(full.spec, P)
    expected, kinds, function = hidden_and_gradient(full, inputs, kv), [], F.scaled_dot_product_attention

    def spy(query, key, value, *args, **kwargs):
        assert not torch.is_autocast_enabled("cpu") or query.dtype == torch.bfloat16
        kinds.append((query.dtype, key.dtype, value.dtype))
        return function(query, key, value, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    half = Backbone(tiny("bert"), dtype="fp32" if how == "autocast" else "bf16").requires_grad_(False)
    kinds.clear()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        found = hidden_and_gradient(half, inputs, kv)
        with torch.no_grad():
            evaluated = text(half(inputs, Prompts(prefix=kv)), inputs)
    assert kinds == [(torch.float32,) * 3] * 3 + [(torch.bfloat16,) * 3] * 3, "three layers"
    for one, other in (*zip(found, expected, strict=True), (evaluated, expected[0])):
        assert 1e-4 < distance(one.float(), other) < 0.05


@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
def test_fine_tuning_a_backbone_of_fewer_bits_is_refused(tiny, head, dtype):
    with pytest.raises(InputError, match=f"backbone_dtype: '{dtype}' is for a frozen backbone, and FineTuning trains"):
        FineTuning(backbone=tiny("bert"), head=head("classify"), backbone_dtype=dtype).configure_model()


@pytest.mark.parametrize("package", ["bitsandbytes", "accelerate"])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_without_the_package_it_is_an_input_error_that_names_the_extra(tiny, monkeypatch, dtype, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"backbone_dtype: '{dtype}' needs .*{package}.*ptune\[quantized\]"):
        Backbone(tiny("bert"), dtype=dtype)


def test_a_pooler_reads_fp32(tiny, batch):
    full, half = (Backbone(tiny("bert"), pool="pooler", dtype=dtype) for dtype in ("fp32", "bf16"))
    with torch.no_grad():
        expected, found = (backbone.pool(backbone(batch()), batch()) for backbone in (full, half))
    assert found.dtype == torch.float32
    assert distance(found, expected) < 0.03


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
@pytest.mark.parametrize("method", names(frozen=True))
def test_it_trains_in_mixed_precision(build, fit, batch, method, precision):
    model = build(method, "bf16")
    assert fit(model, [inputs_of(model, batch)], precision=precision).global_step == 1
    assert {value.dtype for value in model.trained().values()} == {torch.float32}


def test_training_in_16_bits_is_refused_for_a_backbone_of_fewer_bits(build, fit, batch):
    with pytest.raises(
        InputError, match=r"trainer.precision: 'bf16-true' would train in 16 bits .* use 32-true or bf16"
    ):
        fit(build("prefix", "bf16"), [batch(labels=torch.tensor([0, 1, 2]))], precision="bf16-true")
