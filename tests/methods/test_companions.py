"""Biases and normalisations that are trained beside a prompt."""

import pytest
import runs
import torch
from families import FAMILIES, often
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close
from transformers import AutoModel

from ptune.errors import InputError
from ptune.methods.apt import APT
from ptune.methods.p_tuning import PTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning
from ptune.tuning import companions

ALL = ["bias", "query_bias", "layer_norm"]
LABELS = torch.tensor([0, 1, 2])
METHODS = {PromptTuning: {"length": 2, "init": "random"}, PTuning: {"length": 2}, PTuningV2: {"length": 2}}


@pytest.fixture
def build(tiny, head):
    """A model with its weights loaded: build(PTuning, "gpt2", also=["bias"])."""

    def make(method=PTuningV2, family="bert", seed=0, **arguments):
        torch.manual_seed(seed)
        own = METHODS.get(method, {"length": 2})
        model = method(**{"backbone": tiny(family), "head": head("classify")} | own | arguments)
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


def test_companions_are_in_one_order_whatever_pythons_hash_seed(build, monkeypatch):
    """A checkpoint has an optimizer's state by the places of the tensors: another order gives it to other tensors."""
    each = {
        f"norm{i}": ("", lambda backbone, i=i: dict([[*companions.layer_norms(backbone).items()][i]])) for i in range(8)
    }
    monkeypatch.setattr(companions, "FOUND", each)
    model = build(also=[*reversed(each)])
    expected = [*companions.layer_norms(model.backbone)][:8]
    assert [*model.groups()["backbone"]] == [f"backbone.{name}" for name in expected]


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


# ---- adapters


def beside(companions, i, x, gated):
    """`s W_up relu(W_down x)` of layer i for each token, weighted by its gate: what He et al. add to a feed-forward."""
    w = {name.split(".beside.")[1]: v for name, v in companions.items() if f".{i}." in name and ".beside." in name}
    added = torch.zeros_like(x)
    for t, token in enumerate(x[0]):
        inner = [max(w["down.weight"][r] @ token + w["down.bias"][r], torch.tensor(0.0)) for r in range(3)]
        added[0, t] = 4.0 * (w["up.weight"] @ torch.stack(inner) + w["up.bias"])
        if gated:
            added[0, t] /= 1 + torch.exp(-(w["gate.weight"][0] @ token + w["gate.bias"][0]))
    return added


def by_hand(path, family, ids, companions, gated):
    """The last hidden states of one text, by the parts of transformers' layers."""
    model = AutoModel.from_pretrained(path).eval()
    if family == "bert":
        hidden = model.embeddings(ids)
        for i, layer in enumerate(model.encoder.layer):
            x = layer.attention(hidden)[0]
            feed_forward = layer.output.dense(layer.intermediate(x)) + beside(companions, i, x, gated)
            hidden = layer.output.LayerNorm(feed_forward + x)
        return hidden
    hidden = model.wte(ids) + model.wpe(torch.arange(ids.shape[1]))
    for i, layer in enumerate(model.h):
        hidden = hidden + layer.attn(layer.ln_1(hidden))[0]
        x = layer.ln_2(hidden)
        hidden = hidden + layer.mlp(x) + beside(companions, i, x, gated)
    return model.ln_f(hidden)


@torch.no_grad()
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_an_adapter_is_the_papers_beside_each_feed_forward_block_and_nothing_at_the_start(build, batch, family, gated):
    model = build(PromptTuning, family, also=["adapter"], also_rank=3, also_gate=gated).eval()
    inputs = batch(lengths=(7, 5))
    plain = build(PromptTuning, family).eval().backbone(inputs)
    assert torch.equal(model.backbone(inputs), plain)
    companions = model.backbone_parameters(model.backbone)
    assert sum(v.numel() for v in companions.values()) == 3 * (2 * 3 * 32 + 3 + 32 + gated * 33)
    for value in companions.values():
        value.normal_()
    found = model.backbone(inputs)
    for row, length in enumerate((7, 5)):
        ids = inputs["input_ids"][row : row + 1, :length]
        expected = by_hand(model.hparams["backbone"], family, ids, companions, gated)[0]
        assert_close(found[row, :length], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("gated", [False, True])
def test_lora_adds_its_product_for_each_token_times_the_tokens_gate(build, batch, gated):
    model = build(PromptTuning, also=["lora"], also_rank=2, also_gate=gated).eval()
    inputs = batch()
    assert torch.equal(model.backbone(inputs), build(PromptTuning).eval().backbone(inputs))
    for value in model.backbone_parameters(model.backbone).values():
        value.normal_()
    query = model.backbone.model.encoder.layer[1].attention.self.query
    a, b = query.lora_A["default"], query.lora_B["default"].weight
    x = torch.randn(1, 4, 32)
    expected = query.base_layer(x)
    for t in range(4):
        gate = torch.sigmoid(a.gate.weight[0] @ x[0, t] + a.gate.bias[0]) if gated else 1.0
        expected[0, t] += gate * (b @ (a.weight @ x[0, t]))
    assert_close(query(x), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("targets", "count"), [(None, 6), (["query"], 3), ("all-linear", 18)])
def test_lora_is_in_the_layers_that_are_named(build, targets, count):
    model = build(PromptTuning, also=["lora"], also_targets=targets)
    assert sum(name.endswith(".lora_A.default.weight") for name in model.trained()) == count


def test_a_layer_that_is_not_there_is_an_input_error(build):
    with pytest.raises(InputError, match=r"also_targets: LoraConfig cannot be injected .* linear layers are .*query"):
        build(PromptTuning, also=["lora"], also_targets=["queries"])


def test_all_of_unipelt_is_trained_beside_a_prefix_saved_and_loaded(build, fit, batch, tmp_path):
    arguments = {"also": ["lora", "adapter", "bias"], "also_gate": True, "also_lr": 0.03, "lr": 0.1}
    model = build(APT, **arguments, prefix_dropout=0.0)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    fit(model, [batch(labels=LABELS)] * 3)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == set(model.trained())
    kinds = (".lora_A.default.weight", ".lora_B.default.weight", ".lora_A.default.gate.weight", ".beside.up.weight")
    for end in (*kinds, ".beside.gate.bias", "query.base_layer.bias"):
        assert sum(name.endswith(end) for name in moved) in (3, 6), end
    model.save_prompts(tmp_path / "prompts.safetensors")
    other = build(APT, seed=1, **arguments)
    other.load_prompts(tmp_path / "prompts.safetensors")
    with torch.no_grad():
        assert torch.equal(other.eval()(batch()), model.eval()(batch()))


@pytest.mark.parametrize("family", often(FAMILIES, ("bert", "llama", "albert")))
def test_a_feed_forward_block_is_found_in_each_layer_or_the_family_is_refused(build, batch, family):
    if family in ("albert", "gemma3n_text", "gemma4_text"):
        with pytest.raises(InputError, match=r"also: 'adapter', but .* has not one feed-forward block a layer"):
            build(PromptTuning, family, also=["adapter"])
        return
    model = build(PromptTuning, family, also=["adapter"], checkpointing=True)
    inputs = batch(labels=LABELS)
    model.head.loss(model(inputs), inputs)[0].backward()
    ups = [value for name, value in model.backbone.named_parameters() if name.endswith("beside.up.weight")]
    assert len(ups) == 3
    assert all(up.grad.any() for up in ups)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"also": ["bias"], "also_gate": True}, "also_gate: true is for lora and adapter, and there are none"),
        ({"also": ["bias"], "also_rank": 4}, "also_rank: 4 is for lora and adapter, and there are none"),
        ({"also": ["adapter"], "also_rank": 0}, "also_rank: 0 must be at least 1"),
        ({"also": ["bias"], "also_targets": "all-linear"}, "also_targets: all-linear is for lora without adapter"),
        ({"also": ["lora", "adapter"], "also_targets": ["dense"]}, r"also_targets: \['dense'\] is for lora without"),
        ({"also": ["lora"], "also_targets": "all"}, "also_targets: 'all' is not `all-linear`, or a list"),
        ({"also": ["adaptor"]}, "'adaptor' is no companion of a prompt; did you mean 'adapter'"),
    ],
)
def test_impossible_adapters_are_input_errors(tiny, head, arguments, reason):
    with pytest.raises(InputError, match=reason):
        PTuningV2(backbone=tiny("bert"), head=head("classify"), **arguments)
