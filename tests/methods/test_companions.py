"""Biases and normalisations that are trained beside a prompt."""

import pytest
import runs
import torch
from families import often
from safetensors.torch import load_file
from torch import nn

from ptune.errors import InputError
from ptune.methods.p_tuning import PTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning

ALL = ["bias", "query_bias", "layer_norm"]
LABELS = torch.tensor([0, 1, 2])
METHODS = {PromptTuning: {"length": 2, "init": "random"}, PTuning: {"length": 2}, PTuningV2: {"length": 2}}


@pytest.fixture
def build(tiny, head):
    """A model with its weights loaded: build(PTuning, "gpt2", also=["bias"])."""

    def make(method=PTuningV2, family="bert", seed=0, **arguments):
        torch.manual_seed(seed)
        model = method(**{"backbone": tiny(family), "head": head("classify")} | METHODS[method] | arguments)
        model.configure_model()
        return model

    return make


@pytest.fixture
def batch(batch):
    """Batches with prompt slots at the second and third token of each text, which a prefix does not read."""
    slots = torch.tensor([False, True, True, False, False, False, False]).expand(3, -1)
    return lambda **columns: batch(slots=slots, **columns)


def tuned(model):
    """Names of the trained tensors of the backbone."""
    return {name for name in model.trained() if name.startswith("backbone.")}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("also", "ends", "count"),
    [
        (["query_bias"], ("query.bias",), 3 * 32),
        (["layer_norm"], ("LayerNorm.weight", "LayerNorm.bias"), 2 * 7 * 32),
        (["bias"], ("bias",), 32 + 3 * (7 * 32 + 48) + 32),
        (ALL, ("bias", "LayerNorm.weight"), 32 + 3 * (7 * 32 + 48) + 32 + 7 * 32),
    ],
    ids=str,
)
def test_exactly_what_was_named_is_trained_beside_the_prompt_at_its_own_rate(
    build, fit, batch, method, also, ends, count
):
    model = build(method, also=also, also_lr=0.03, lr=0.01, schedule="constant")
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    own = tuned(model)
    assert own == {name for name in before if name.startswith("backbone.") and name.endswith(ends)}
    assert sum(model.trained()[name].numel() for name in own) == count
    rates = {group["name"]: group["lr"] for group in fit(model, [batch(labels=LABELS)]).optimizers[0].param_groups}
    assert rates["backbone/1d"] == 0.03
    assert rates["prompt"] == 0.01
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == set(model.trained())


@pytest.mark.parametrize(
    ("family", "also", "a_name"),
    [
        ("deberta", "query_bias", "model.encoder.layer.0.attention.self.q_bias"),
        ("deberta-v2", "query_bias", "model.encoder.layer.0.attention.self.query_proj.bias"),
        ("distilbert", "query_bias", "model.transformer.layer.0.attention.q_lin.bias"),
        ("mpnet", "query_bias", "model.encoder.layer.0.attention.attn.q.bias"),
        ("opt", "query_bias", "model.decoder.layers.0.self_attn.q_proj.bias"),
        ("llama", "layer_norm", "model.layers.0.input_layernorm.weight"),
        ("t5", "layer_norm", "model.block.0.layer.0.layer_norm.weight"),
        ("xlnet", "bias", "model.layer.0.rel_attn.r_w_bias"),
        ("gemma3_text", "layer_norm", "model.layers.0.self_attn.k_norm.weight"),
    ],
)
def test_each_familys_own_names_are_found(build, family, also, a_name):
    assert f"backbone.{a_name}" in tuned(build(PromptTuning, family, also=[also]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("family", "also", "what"),
    [
        ("llama", "bias", "biases"),
        ("t5", "query_bias", "biases of its"),
        ("gpt2", "query_bias", "biases of its queries"),
    ],
)
def test_a_family_that_has_none_is_refused(build, method, family, also, what):
    with pytest.raises(InputError, match=rf"also: '{also}', but backbone .*'{family}'\) has no {what}.*leave it out"):
        build(method, family, also=[also])


def test_without_companions_nothing_of_the_backbone_is_trained(build):
    for method in METHODS:
        assert tuned(build(method)) == tuned(build(method, also=[])) == set()


@pytest.mark.parametrize("form", [{"mlp": 4}, {"form": "hidden"}, {"init": "identity"}], ids=str)
@pytest.mark.parametrize("family", often(["bert", "deberta-v2"], ["bert"]))
def test_companions_are_saved_with_a_folded_prompt_and_give_the_same_scores(build, batch, tmp_path, family, form):
    model = build(family=family, also=["bias", "layer_norm"], **form)
    for value in model.trained().values():
        nn.init.normal_(value, std=0.3)
    model.save_prompts(tmp_path / "prompts.safetensors")
    assert tuned(model) < set(load_file(tmp_path / "prompts.safetensors"))
    other = build(family=family, also=["layer_norm", "bias"], seed=1, **form)
    other.load_prompts(tmp_path / "prompts.safetensors")
    with torch.no_grad():
        unfolded = model.eval()(batch())
        model.fold()
        expected = model(batch())
        assert torch.equal(other.eval()(batch()), expected)
    torch.testing.assert_close(unfolded, expected, atol=2e-6, rtol=0)
    with pytest.raises(InputError, match="does not fit this model: tensors is"):
        build(family=family, **form).load_prompts(tmp_path / "prompts.safetensors")


@pytest.mark.parametrize(
    ("method", "arguments", "reason"),
    [
        (
            PTuning,
            {"also": ["bias"], "backbone_lr": 1e-5},
            r"also: \['bias'\], but backbone_lr: 1e-05 trains all",
        ),
        (PTuningV2, {"also": ["biases"]}, "also: 'biases' is no companion of a prompt; did you mean 'bias'"),
        (PTuningV2, {"also_lr": 0.0}, "also_lr: 0.0 must be greater than 0"),
        (PromptTuning, {"also": ["bias"], "backbone_dtype": "bf16"}, "backbone_dtype: 'bf16' is for a frozen backbone"),
    ],
)
def test_an_impossible_argument_is_an_input_error_before_the_weights_load(tiny, head, method, arguments, reason):
    with pytest.raises(InputError, match=reason):
        method(backbone=tiny("bert"), head=head("classify"), **arguments)


def test_the_command_line_takes_a_list_and_refuses_another_word(tmp_path):
    options = {"trainer__max_epochs": 1, "trainer__limit_train_batches": 1, "model__also_lr": 0.01}
    code, out, err = runs.call(runs.line(tmp_path / "run", model__also="[bias, layer_norm]", **options))
    assert code == 0, err
    assert "trained backbone" in out
    code, _, err = runs.call(runs.line(tmp_path / "other", model__also="[biases]", **options))
    assert (code, err.count("\n")) == (2, 1)
    assert "also: 'biases' is no companion of a prompt; did you mean 'bias'" in err
