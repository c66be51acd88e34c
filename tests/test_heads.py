"""Heads against torch's own losses."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from ptune.backbone import Backbone
from ptune.heads import head_for
from ptune.heads.linear import Choice, Classify, Regress, Span, Tag

WIDTH, LENGTHS = 32, (7, 5, 3, 6)


@pytest.fixture
def backbone(tiny):
    return Backbone(tiny("bert"), pool="first")


@pytest.fixture
def hidden():
    return torch.randn(4, 7, WIDTH, generator=torch.Generator().manual_seed(0))


LABELS = {
    "classify": torch.tensor([2, 0, 1, 1]),
    "regress": torch.tensor([0.5, -2.0, 4.0, 1.0]),
    "choice": torch.tensor([1, 0]),
    "span": torch.tensor([[1, 6], [0, 0], [2, 2], [4, 5]]),
    "tag": torch.tensor([[-100, 1, 2, -100, 0, 0, -100], [-100, 0, 1, -100, -100, -100, -100]] * 2),
}
each_kind = pytest.mark.parametrize("kind", LABELS)


def mean_by_torch(kind, scores, labels):
    """The mean loss, as each task format's paper has it."""
    match kind:
        case "regress":
            return F.mse_loss(scores, labels)
        case "span":
            return (F.cross_entropy(scores[..., 0], labels[:, 0]) + F.cross_entropy(scores[..., 1], labels[:, 1])) / 2
        case "tag":
            return F.cross_entropy(scores.permute(0, 2, 1), labels)
    return F.cross_entropy(scores, labels)


@pytest.mark.parametrize(
    ("kind", "form", "outputs", "shape"),
    [
        ("classify", Classify, 3, (4, 3)),
        ("regress", Regress, 1, (4,)),
        ("choice", Choice, 1, (2, 2)),
        ("span", Span, 2, (4, 7, 2)),
        ("tag", Tag, 3, (4, 7, 3)),
    ],
)
def test_each_kind_is_one_linear_layer_with_scores_of_its_shape(
    backbone, batch, hidden, head, kind, form, outputs, shape
):
    module = head_for(head(kind), backbone.spec, 0.1)
    assert type(module) is form
    bias = {} if kind in ("choice", "span") else {"linear.bias": (outputs,)}  # there a bias would change nothing
    assert {name: tuple(value.shape) for name, value in module.named_parameters()} == {
        "linear.weight": (outputs, WIDTH)
    } | bias
    assert module(hidden, batch(LENGTHS, labels=LABELS[kind]), backbone).shape == shape


@each_kind
def test_sum_over_count_is_torchs_mean_loss(backbone, batch, hidden, head, kind):
    module = head_for(head(kind), backbone.spec, 0.0)
    inputs = batch(LENGTHS, labels=LABELS[kind])
    scores = module(hidden, inputs, backbone)
    total, count = module.loss(scores, inputs)
    assert_close(total / count, mean_by_torch(kind, scores, LABELS[kind]))


@each_kind
def test_sums_and_counts_of_parts_add_up_to_the_whole(backbone, batch, hidden, head, kind):
    module = head_for(head(kind), backbone.spec, 0.0)
    whole = batch(LENGTHS, labels=LABELS[kind])
    total, count = module.loss(module(hidden, whole, backbone), whole)
    parts = []
    for part in (slice(0, 2), slice(2, 4)):
        texts_in_row = 2 if kind == "choice" else 1
        rows = slice(part.start // texts_in_row, part.stop // texts_in_row)
        inputs = {key: value[rows if key == "labels" else part] for key, value in whole.items()}
        parts.append(module.loss(module(hidden[part], inputs, backbone), inputs))
    assert_close(sum(part[0] for part in parts), total)
    assert sum(part[1] for part in parts) == count
    assert parts[0][0] != parts[1][0]


@each_kind
def test_the_loss_of_bf16_scores_is_computed_in_fp32(backbone, batch, hidden, head, kind):
    module = head_for(head(kind), backbone.spec, 0.0)
    inputs = batch(LENGTHS, labels=LABELS[kind])
    rounded = module(hidden, inputs, backbone).bfloat16()
    total, _ = module.loss(rounded, inputs)
    assert total.dtype == torch.float32
    assert_close(total, module.loss(rounded.float(), inputs)[0])


def test_the_endings_of_a_row_are_neighbours(backbone, batch, hidden, head):
    module = head_for(head("choice"), backbone.spec, 0.0)
    scores = module(hidden, batch(LENGTHS, labels=LABELS["choice"]), backbone)
    alone = module.linear(hidden[:, 0]).squeeze(1)  # pooled by the first token
    assert_close(scores, torch.stack([alone[:2], alone[2:]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_padding_cannot_be_an_answer(backbone, batch, hidden, head, dtype):
    module = head_for(head("span"), backbone.spec, 0.0).to(dtype)
    inputs = batch(LENGTHS, labels=LABELS["span"])
    padding = inputs["attention_mask"] == 0
    module.linear.weight.data.fill_(-1.0)  # so that an unmasked padding score of 0 would win
    scores = module(hidden.abs().to(dtype) * ~padding[..., None], inputs, backbone)
    probabilities = scores.float().softmax(1)
    assert (probabilities[padding] == 0).all()
    assert (probabilities[~padding] > 0).all()
    total, count = module.loss(scores, inputs)
    assert total.isfinite()
    assert count == 4


def test_unlabelled_tokens_do_not_count(backbone, batch, hidden, head):
    module = head_for(head("tag"), backbone.spec, 0.0)
    inputs = batch(LENGTHS, labels=LABELS["tag"])
    scores = module(hidden, inputs, backbone).detach().requires_grad_()
    total, count = module.loss(scores, inputs)
    assert count == 12 == (LABELS["tag"] != -100).sum()
    total.backward()
    assert ((scores.grad != 0).all(-1) == (LABELS["tag"] != -100)).all()


@each_kind
def test_a_head_drops_out_in_training_alone(backbone, batch, hidden, head, kind):
    module = head_for(head(kind), backbone.spec, 0.5)
    inputs = batch(LENGTHS, labels=LABELS[kind])
    assert not torch.equal(module(hidden, inputs, backbone), module(hidden, inputs, backbone))
    module.eval()
    assert torch.equal(module(hidden, inputs, backbone), module(hidden, inputs, backbone))


def test_a_head_starts_as_berts():
    torch.manual_seed(0)
    module = Classify(400, 100, 0.1)
    assert module.linear.weight.detach().std() == pytest.approx(0.02, rel=0.02)
    assert (module.linear.bias == 0).all()
