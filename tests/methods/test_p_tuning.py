"""P-Tuning v1: its encoder is the paper's, folds into plain vectors, and fills the slots of the input."""

import pytest
import torch
from torch.testing import assert_close

from ptune.errors import InputError
from ptune.methods.p_tuning import PromptEncoder, PTuning

P = 3


@pytest.fixture
def built(tiny, head):
    def make(task="classify", **arguments):
        torch.manual_seed(0)
        model = PTuning(backbone=tiny("bert"), head=head(task), length=P, **arguments)
        model.configure_model()
        return model

    return make


def slotted(batch, columns):
    """Texts with P slots behind the first token."""
    inputs = batch(**columns)
    slots = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    slots[:, 1 : 1 + P] = True
    return inputs | {"slots": slots, "labels": torch.tensor([0, 1, 2])}


def lstm_by_hand(x, lstm):
    """A 2-layer BiLSTM written out (torch gives gates in the order input, forget, cell, output): "p e" -> "p 2h"."""
    for layer in range(2):
        sides = []
        for suffix in ("", "_reverse"):
            w, u, b, c = (
                getattr(lstm, f"{name}_l{layer}{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            h = s = torch.zeros(lstm.hidden_size)
            outputs = []
            for vector in x if not suffix else x.flip(0):
                i, f, g, o = (w @ vector + b + u @ h + c).chunk(4)
                s = f.sigmoid() * s + i.sigmoid() * g.tanh()
                h = o.sigmoid() * s.tanh()
                outputs.append(h)
            sides.append(torch.stack(outputs if not suffix else outputs[::-1]))
        x = torch.cat(sides, 1)
    return x


@pytest.mark.parametrize(("kind", "hidden"), [("lstm", 4), ("lstm", 8), ("mlp", 4)])
def test_the_encoder_equals_the_papers_written_out(kind, hidden):
    encoder = PromptEncoder(P, 8, kind, hidden)
    x = encoder.embedding if kind == "mlp" else lstm_by_hand(encoder.embedding, encoder.lstm)
    first, _, second = encoder.mlp
    by_hand = (x @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias
    assert_close(encoder()[0], by_hand)


def test_the_papers_sizes_are_the_default(built):
    model = built()
    width = 32
    assert model.prompt.lstm.hidden_size == width // 2
    lstm = 2 * 2 * 4 * (width // 2) * (width + width // 2 + 2)  # layers, directions, gates, rows of weights and biases
    assert sum(value.numel() for value in model.prompt.parameters()) == P * width + lstm + 2 * (width * width + width)


@pytest.mark.parametrize("kind", ["lstm", "mlp"])
def test_folded_scores_equal_the_encoders_and_stay_trainable(built, batch, tmp_path, kind):
    model = built(encoder=kind).eval()
    inputs = slotted(batch, {"lengths": (7, 6, 5)})
    with torch.no_grad():
        before = model(inputs)
    model.save_prompts(tmp_path / "prompts.safetensors")
    other = built(encoder=kind).eval()
    other.head.linear.weight.data.zero_()
    other.load_prompts(tmp_path / "prompts.safetensors")
    assert set(other.trained()) == {"prompt.vectors", "head.linear.weight", "head.linear.bias"}
    total, _ = other.head.loss(other(inputs), inputs)
    total.backward()
    assert all(value.grad.abs().sum() > 0 for value in other.trained().values())
    assert_close(other(inputs), before, rtol=0, atol=1e-6)


def test_a_folded_model_leaves_checkpoints_that_load_into_the_encoders_method(built, batch, fit, tmp_path):
    model, inputs = built(), slotted(batch, {"lengths": (7, 6, 5)})
    state = torch.get_rng_state()
    model.fold()
    assert torch.equal(torch.get_rng_state(), state), "folding draws no random numbers"
    fit(model, [inputs]).save_checkpoint(tmp_path / "model.ckpt")
    loaded = type(model).load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded(inputs), model.eval()(inputs))


def test_every_tensor_of_the_encoder_gets_a_gradient(built, batch):
    model = built()
    inputs = slotted(batch, {"lengths": (7, 6, 5)})
    total, _ = model.head.loss(model(inputs), inputs)
    total.backward()
    assert all(value.grad.abs().sum() > 0 for value in model.trained().values())
    assert all(value.grad is None for value in model.backbone.parameters())


def test_a_backbone_with_a_learning_rate_of_its_own_is_trained_by_it(built, batch, fit):
    model = built(lr=0.1, head_lr=0.2, backbone_lr=1e-3, schedule="constant")
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = fit(model, [slotted(batch, {"lengths": (7, 6, 5)})]).optimizers[0]
    assert {group["name"].split("/")[0]: group["lr"] for group in optimizer.param_groups} == {
        "prompt": 0.1,
        "head": 0.2,
        "backbone": 1e-3,
    }
    # Adam's first step is the learning rate, whatever the gradient; a key's bias has none but rounding.
    steps = {name: (value - before[name]).abs().max().item() for name, value in model.named_parameters()}
    assert set(model.trained()) == set(steps)
    for name, step in steps.items():
        if name.endswith("key.bias"):
            continue
        rate = {"prompt": 0.1, "head": 0.2, "backbone": 1e-3}[name.partition(".")[0]]
        assert step == pytest.approx(rate, rel=1e-2), name


def test_prompts_saved_with_a_trained_backbone_bring_it_along(built, batch, fit, tmp_path):
    model, inputs = built(backbone_lr=0.01), slotted(batch, {"lengths": (7, 6, 5)})
    fit(model, [inputs])
    model.save_prompts(tmp_path / "prompts.safetensors")
    other = built(backbone_lr=0.01).eval()
    other.load_prompts(tmp_path / "prompts.safetensors")
    with torch.no_grad():
        assert_close(other(inputs), model.eval()(inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "length: 0"),
        ({"hidden": -1}, "hidden: -1"),
        ({"backbone_lr": -1e-5}, "backbone_lr: -1e-05"),
        ({"backbone_lr": float("nan")}, "backbone_lr: nan"),
    ],
)
def test_bad_arguments_are_refused(tiny, head, arguments, message):
    with pytest.raises(InputError, match=message):
        PTuning(backbone=tiny("bert"), head=head("classify"), **arguments)
