"""P-Tuning v2's gate, the units that its prefix is trained in, its starts and its form `hidden`."""

import pytest
import torch
from families import FAMILIES, SOME, UNSHARED, often
from safetensors.torch import load_file
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset

from ptune.backbone import Backbone
from ptune.backbones import tuned
from ptune.errors import InputError
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.tuning.prefix import PrefixEncoder

LABELS = torch.tensor([0, 1, 2])
P = 5
each_family = pytest.mark.parametrize("family", often(FAMILIES))


@pytest.fixture
def build(tiny, head):
    """A model with its weights loaded: build("gpt2", gate=True)."""

    def make(family="bert", method=PTuningV2, seed=0, **arguments):
        torch.manual_seed(seed)
        length = {"length": P} if method is PTuningV2 else {}
        model = method(**{"backbone": tiny(family), "head": head("classify")} | length | arguments)
        model.configure_model()
        return model

    return make


def scores(model, inputs):
    """Scores without dropout."""
    with torch.no_grad():
        return model.eval()(inputs)


def by_layer(model):
    """The root mean square of each layer's keys and values: "l two"."""
    return torch.stack([layer.detach().square().mean((1, 2, 3, 4)).sqrt() for layer in model.prompt.encoder()])


# ---- the gate


@pytest.mark.parametrize(
    "start",
    [
        {"init": "normal", "gate": True},
        {"init": "text", "init_text": "w1 w2", "gate": True, "scaled": True},
        {"init": "identity"},
        {"init": "identity", "mlp": 6},
        {"init": "identity", "form": "hidden"},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", often(SOME, ("bert", "xlnet")))
def test_with_a_gate_every_start_is_the_backbone(build, batch, family, start):
    model, probe = build(family, **start), build(family, method=LinearProbe)
    probe.head.load_state_dict(model.head.state_dict())
    assert_close(scores(model, batch()), scores(probe, batch()), atol=3e-6, rtol=0)
    torch.nn.init.ones_(model.prompt.gate)
    assert not torch.allclose(scores(model, batch()), scores(probe, batch()), atol=1e-4)


def test_identity_is_another_name_for_a_drawn_start_with_gate_and_units(build, batch):
    one, other = build(init="identity"), build(init="normal", gate=True, scaled=True)
    for name, value in one.trained().items():
        assert torch.equal(value, other.trained()[name]), name
    assert torch.equal(one.prompt.encoder.scale, other.prompt.encoder.scale)


@pytest.mark.parametrize(("own", "rate"), [({"gate_lr": 0.3}, 0.3), ({}, 0.1)])
def test_the_gates_may_have_a_rate_of_their_own(build, fit, batch, own, rate):
    model = build(init="identity", lr=0.1, schedule="constant", **own)
    fit(model, [batch(labels=LABELS)])
    assert_close(model.prompt.gate.abs(), torch.full_like(model.prompt.gate, rate), atol=0, rtol=1e-3)
    assert set(model.groups()) == {"prompt", "head"} | ({"gate"} if own else set())
    assert set(model.trained()) >= {"prompt.gate", "prompt.encoder.flat"}


# ---- units of the layer


@each_family
def test_a_layers_units_are_the_root_mean_square_of_its_keys_and_of_its_values(tiny, head, family):
    torch.manual_seed(1)
    model = PTuningV2(backbone=tiny(family), head=head("classify"), length=40, scaled=True)
    model.configure_model()
    backbone = Backbone(tiny(family))
    for row, layer in enumerate(backbone.keys_values(backbone.layers.typical())):
        for half in (0, 1):
            numbers = layer[half].flatten().tolist()
            expected = (sum(x * x for x in numbers) / len(numbers)) ** 0.5
            assert float(model.prompt.encoder.scale[row, half]) == pytest.approx(expected, rel=1e-4)
    assert_close(by_layer(model) / model.prompt.encoder.scale, torch.full((3, 2), 0.5), atol=0.1, rtol=0)


def test_the_units_depend_on_the_weights_alone(build):
    one, other = build(scaled=True), build(scaled=True, seed=1)
    assert torch.equal(one.prompt.encoder.scale, other.prompt.encoder.scale)
    assert not torch.equal(one.prompt.encoder.flat, other.prompt.encoder.flat)


def test_the_first_step_moves_every_layers_prefix_by_the_rate_in_its_own_units(build, fit, batch):
    model = build(scaled=True, lr=0.01, schedule="constant", prefix_dropout=0.0)
    start = [layer.detach().clone() for layer in model.prompt.encoder()]
    fit(model, [batch(labels=LABELS)])
    for before, after, scale in zip(start, model.prompt.encoder(), model.prompt.encoder.scale, strict=True):
        moved = ((after - before).abs() / scale.view(2, 1, 1, 1, 1)).detach()
        assert_close(moved.median(), torch.tensor(0.01), atol=0, rtol=0.01)  # Adam's first step is the gradient's sign


def test_what_the_authors_code_has_is_the_default_and_can_be_written_out(build):
    options = {"init": "normal", "init_std": 0.02, "gate": False, "scaled": False, "mlp": 0}
    assert torch.equal(build(**options).prompt.encoder.flat, build().prompt.encoder.flat)
    torch.manual_seed(0)
    encoder = PrefixEncoder(P, [(4, 8)] * 3)
    torch.manual_seed(0)
    assert torch.equal(encoder.flat, torch.nn.init.normal_(torch.empty(P, 192), std=0.02))
    assert_close(build(init_std=0.5).prompt.encoder.flat, 25 * build().prompt.encoder.flat)


@pytest.mark.parametrize("arguments", [{"init_std": 0.3}, {"init_std": 0.3, "scaled": True}], ids=str)
def test_what_an_mlp_computes_starts_with_the_standard_deviation_that_was_asked_for(build, arguments):
    model = build(mlp=6, **arguments)
    encoder = model.prompt.encoder
    table = encoder.mlp(encoder.embedding).detach()
    assert_close(table.std(), torch.tensor(0.3))


def test_a_text_starts_a_prefix_in_units_from_its_keys_and_values_all_the_same(build):
    plain, units = (build(init="text", init_text="w1 w2 w3", scaled=scaled) for scaled in (False, True))
    assert_close(units.prompt.encoder(), plain.prompt.encoder(), atol=1e-6, rtol=1e-6)


# ---- tokens of training rows


def token_of(prefix, texts, layers=range(3)):
    """The token "text, position" that each vector of a prefix is taken from; None for no token."""
    places = [(i, j) for i, text in enumerate(texts) for j in range(text[0].shape[-2])]
    found = []
    for vector in range(prefix[0].shape[-2]):
        close = [
            (i, j)
            for i, j in places
            if all(
                torch.allclose(own[..., vector, :], texts[i][layer][..., j, :], atol=1e-6)
                for own, layer in zip(prefix, layers, strict=True)
            )
        ]
        found.append(close[0] if close else None)
    return found


@pytest.fixture
def begun(build, fit, batch, monkeypatch):
    """A model as its first step finds it, and what the texts that it is trained on have in each layer."""

    def run(family="bert", lengths=(7, 5, 3), seed=11, batches=1, **arguments):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        model = build(family, init="tokens", lr=1e-30, **arguments)
        inputs = batch(lengths, labels=LABELS)
        fit(model, [inputs] * batches)
        texts = [inputs["input_ids"][row : row + 1, :length] for row, length in enumerate(lengths)]
        layers = Backbone(model.hparams["backbone"]).layers
        read = layers.inputs if arguments.get("form") == "hidden" else layers.keys_values
        return model, [read(input_ids=text) for text in texts]

    return run


@pytest.mark.parametrize("arguments", [{}, {"scaled": True, "gate": True}, {"layers": [0, 2]}], ids=str)
@pytest.mark.parametrize("family", often([*SOME, "gemma4_text"], ["bert"]))
def test_tokens_start_from_keys_and_values_of_tokens_of_training_rows(begun, family, arguments):
    model, texts = begun(family, **arguments)
    found = token_of([layer.detach() for layer in model.prompt.encoder()], texts, model.layers)
    assert None not in found, "each vector is one token in every layer, and none is padding"
    assert len(set(found)) == P
    assert len({text for text, _ in found}) > 1, "of several rows"


@pytest.mark.parametrize("arguments", [{}, {"scaled": True}, {"layers": [0, 2]}], ids=str)
@pytest.mark.parametrize("family", often([*SOME, "gpt2", "albert"], ["xlnet"]))
def test_vectors_start_from_what_layers_read_of_tokens_of_training_rows(begun, family, arguments):
    model, texts = begun(family, form="hidden", **arguments)
    found = token_of(model.prompt.encoder.inputs().detach(), texts, model.layers)
    assert None not in found
    assert len(set(found)) == P


def test_the_tokens_are_drawn_by_the_seed(begun):
    one, again, other = (begun(seed=seed)[0].prompt.encoder.flat for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_where_there_are_fewer_tokens_than_vectors_they_are_repeated(begun):
    model, texts = begun(lengths=(2, 1, 1))
    found = token_of([layer.detach() for layer in model.prompt.encoder()], texts)
    assert set(found) == {(0, 0), (0, 1), (1, 0), (2, 0)}
    assert found[4] == found[0]


def test_what_was_trained_or_loaded_is_not_started_again(begun, build, fit, batch, tmp_path):
    model, _ = begun()
    model.prompt.encoder.flat.data.zero_()
    trainer = fit(model, [batch(labels=LABELS)])
    assert_close(model.prompt.encoder.flat.abs().max(), torch.tensor(0.0), atol=1e-20, rtol=0)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    model.save_prompts(tmp_path / "prompts.safetensors")
    loaded = build(init="tokens", lr=1e-30)
    loaded.load_prompts(tmp_path / "prompts.safetensors")
    for other in (loaded, PTuningV2.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)):
        fit(other, [batch(labels=LABELS)])
        assert_close(other.prompt.encoder.flat.abs().max(), torch.tensor(0.0), atol=1e-20, rtol=0)


def test_a_stream_of_training_rows_is_refused(build, trainer, batch):
    class Stream(IterableDataset):
        def __iter__(self):
            yield batch(labels=LABELS)

    runner, model = trainer(max_steps=1), build(init="tokens", schedule="constant")
    with pytest.raises(InputError, match="init: 'tokens' draws rows, which a stream of training data does not allow"):
        runner.fit(model, DataLoader(Stream(), batch_size=None))


# ---- vectors that the layers project


@pytest.mark.parametrize("scaled", [False, True], ids=["", "scaled"])
@each_family
def test_a_text_starts_both_forms_from_the_same_keys_and_values(build, family, scaled):
    start = {"init": "text", "init_text": "w1 w2 w3", "scaled": scaled, "layers": [0, 1]}
    table, hidden = (build(family, form=form, **start).prompt.encoder for form in ("table", "hidden"))
    assert_close(hidden(), table(), atol=2e-6, rtol=2e-6)


@each_family
def test_with_every_head_all_that_is_declared_gets_a_gradient_or_the_family_is_refused(tiny, family):
    arguments = {"length": P, "form": "hidden", "init": "identity"}
    if family in UNSHARED:
        with pytest.raises(InputError, match=r"form: 'hidden', but layers \[2\] of .* have no projections"):
            tuned(PTuningV2, tiny(family), **arguments | {"init": "normal"})
        arguments["layers"] = [0, 1]
    assert tuned(PTuningV2, tiny(family), **arguments | {"init": "normal", "gate": False, "scaled": True}) == "yes"


@each_family
@pytest.mark.parametrize("gate", [False, True], ids=["", "gated"])
def test_what_the_layers_project_is_folded_into_plain_keys_and_values(tiny, build, batch, tmp_path, family, gate):
    form = {"form": "hidden", "scaled": True, "gate": gate, "layers": [0, 1]}
    model = build(family, **form)
    if gate:
        torch.nn.init.ones_(model.prompt.gate)
    before = scores(model, batch())
    model.save_prompts(tmp_path / "prompts.safetensors")
    model.fold()
    assert_close(scores(model, batch()), before, atol=2e-6, rtol=0)
    assert {name for name in model.trained() if "encoder" in name} == {"prompt.encoder.flat"}
    other, plain = build(family, seed=1, **form), build(family, seed=1, gate=gate, layers=[0, 1])
    for loaded in (other, plain):
        loaded.load_prompts(tmp_path / "prompts.safetensors")
        assert torch.equal(scores(loaded, batch()), scores(model, batch()))


@pytest.mark.parametrize("family", often(["albert", *SOME], ["albert", "xlnet"]))
def test_checkpointing_changes_no_score_and_no_gradient(build, batch, family):
    found = []
    for checkpointing in (False, True):
        model = build(family, form="hidden", checkpointing=checkpointing, prefix_dropout=0.0, head_dropout=0.0)
        torch.nn.init.normal_(model.prompt.encoder.vectors, generator=torch.Generator().manual_seed(0))
        inputs = batch(labels=LABELS)
        loss = model.head.loss(model(inputs), inputs)[0]
        loss.backward()
        found.append((loss.detach(), model.prompt.encoder.vectors.grad))
    assert_close(found[1], found[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("arguments", [{}, {"scaled": True, "layers": [0, 2]}], ids=str)
def test_norms_are_those_of_the_vectors_and_of_their_gradient(build, batch, arguments):
    model, inputs = build(form="hidden", **arguments), batch(labels=LABELS)
    model.head.loss(model(inputs), inputs)[0].backward()
    norms = model.layer_norms()
    assert len(norms) == 2 * len(model.layers)
    for row, layer in enumerate(model.layers):
        assert_close(norms[f"prompt_norm/layer_{layer:02d}"], model.prompt.encoder.inputs()[row].norm().detach())
        assert_close(norms[f"prompt_grad_norm/layer_{layer:02d}"], model.prompt.encoder.vectors.grad[row].norm())


def test_a_checkpoint_of_one_form_is_refused_in_the_other(build, fit, batch, tmp_path):
    fit(build(form="hidden"), [batch(labels=LABELS)]).save_checkpoint(tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=r"tensors is .*prompt\.encoder\.vectors .* and .*prompt\.encoder\.flat"):
        PTuningV2.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True, form="table")


# ---- what is kept


@pytest.mark.parametrize("arguments", [{"scaled": True}, {"init": "identity", "mlp": 6}], ids=str)
def test_a_prefix_in_units_is_folded_into_plain_keys_and_values(build, batch, tmp_path, arguments):
    model = build(**arguments)
    if model.prompt.gate is not None:
        torch.nn.init.ones_(model.prompt.gate)
    before = scores(model, batch())
    model.save_prompts(tmp_path / "prompts.safetensors")
    model.fold()
    assert_close(scores(model, batch()), before, atol=1e-6, rtol=0)
    assert model.prompt.encoder.scale is None
    own = {"prompt.encoder.flat", "prompt.gate"} if model.prompt.gate is not None else {"prompt.encoder.flat"}
    assert {name for name in load_file(tmp_path / "prompts.safetensors") if name.startswith("prompt")} == own
    plain = build(gate=model.prompt.gate is not None, seed=1)
    plain.load_prompts(tmp_path / "prompts.safetensors")
    assert torch.equal(scores(plain, batch()), scores(model, batch())), "in a model that has no units, too"


def test_a_checkpoints_units_are_its_own_whatever_is_measured_where_it_is_loaded(build, fit, batch, tmp_path):
    model = build(init="identity")
    model.prompt.encoder.scale.mul_(3)
    fit(model, [batch(labels=LABELS)]).save_checkpoint(tmp_path / "model.ckpt")
    loaded = PTuningV2.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert torch.equal(loaded.prompt.encoder.scale, model.prompt.encoder.scale)
    assert torch.equal(scores(loaded, batch()), scores(model, batch()))


def test_a_checkpoint_from_before_there_were_units_holds_a_prefix_without(build, fit, batch, tmp_path):
    model = build(gate=True)
    fit(model, [batch(labels=LABELS)] * 2).save_checkpoint(tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    for name in ("gate", "gate_lr", "scaled", "init_std"):
        del checkpoint["hyper_parameters"][name]
    checkpoint["hyper_parameters"]["init"] = "identity"  # as it was written then
    torch.save(checkpoint, tmp_path / "model.ckpt")
    loaded = PTuningV2.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert torch.equal(scores(loaded, batch()), scores(model, batch()))


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"gate_lr": 0.1}, r"gate_lr: 0\.1 is for gates, and there are none; use gate: true"),
        ({"gate": True, "gate_lr": 0.0}, "gate_lr: 0.0 must be greater than 0"),
        ({"init_std": 0.0}, "init_std: 0.0 must be greater than 0"),
        ({"init": "text", "init_text": "w1", "init_std": 0.1}, "init_std: 0.1 is for a start that is drawn"),
        ({"init": "tokens", "init_std": 0.1}, "init_std: 0.1 is for a start that is drawn, which init: 'tokens' is"),
        ({"form": "hidden", "mlp": 4}, "mlp: 4 computes a table, and form: 'hidden' has none"),
        ({"init": "tokens", "mlp": 4}, "mlp: 4 cannot start from init: 'tokens'"),
    ],
)
def test_an_impossible_argument_is_an_input_error_before_the_weights_load(tiny, head, arguments, reason):
    with pytest.raises(InputError, match=reason):
        PTuningV2(backbone=tiny("bert"), head=head("classify"), **arguments)
