"""Heads against torch's own losses."""

import importlib
import sys

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import ptune.heads
from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.heads import head_for, kinds
from ptune.heads.linear import Choice, Classify, Regress
from ptune.heads.metrics import Scores, majority
from ptune.heads.multi_label import MultiLabel
from ptune.heads.tokens import Span, Tag
from ptune.tasks.spec import HeadSpec

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
LABELS["multi_label"] = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1]])
each_kind = pytest.mark.parametrize("kind", LABELS)


def mean_by_torch(kind, scores, labels):
    """The mean loss, as each task format's paper has it."""
    match kind:
        case "regress":
            return F.mse_loss(scores, labels)
        case "span":
            return (F.cross_entropy(scores[..., 0], labels[:, 0]) + F.cross_entropy(scores[..., 1], labels[:, 1])) / 2
        case "multi_label":
            return F.binary_cross_entropy_with_logits(scores, labels.float())
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
        ("multi_label", MultiLabel, 3, (4, 3)),
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


# ---- kinds


def test_kinds_are_found_where_they_lie():
    assert set(kinds()) == {*LABELS, "by_task", "cloze", "cloze_choice", "fill"}
    assert all(cls.kind == kind and cls.metrics for kind, cls in kinds().items())


def test_a_kind_that_is_nowhere_is_an_input_error(backbone):
    with pytest.raises(InputError, match="head: no kind 'clasify'; did you mean 'classify'"):
        head_for(HeadSpec("x", "clasify", (), (), ""), backbone.spec, 0.0)


EACH_LABEL = '''
"""Any of c labels: scores "b c", labels "b c" of 0 and 1; the table has c columns of right and c of wrong answers."""

from typing import final

import torch
from torch.nn import functional as F

from ptune.heads.linear import LinearHead
from ptune.heads.mistakes import of_labels


@final
class EachLabel(LinearHead):
    kind = "each_label"
    metrics = {"macro_accuracy": lambda table: table[:, : table.shape[1] // 2].mean(0).mean()}

    @classmethod
    def build(cls, spec, backbone, dropout, bias):
        return cls(backbone.width, len(spec.labels), dropout, bias)

    def forward(self, hidden, batch, backbone):
        return self.project(backbone.pool(hidden, batch))

    def loss(self, scores, batch):
        labels = batch["labels"].float()
        total = F.binary_cross_entropy_with_logits(scores.float(), labels, reduction="sum")
        return total, torch.tensor(labels.numel())

    @classmethod
    def columns(cls, spec):
        return (*(f"right {label}" for label in spec.labels), *(f"wrong {label}" for label in spec.labels))

    @classmethod
    def rows(cls, spec, scores, batch):
        right = (scores > 0) == batch["labels"].bool()
        return torch.cat([right, ~right], dim=1).float()

    @classmethod
    def answers(cls, spec, scores, batch, top_k=1):
        rows = scores.sigmoid().tolist()
        return [[{"answer": name, "score": p} for name, p in zip(spec.labels, row)][:top_k] for row in rows]

    @classmethod
    def gold(cls, spec, batch):
        return [[spec.labels[i] for i, yes in enumerate(row) if yes] for row in batch["labels"].tolist()]

    @classmethod
    def right(cls, table):
        return table[:, : table.shape[1] // 2].all(1).tolist()

    @classmethod
    def mistakes(cls, spec, answers, gold):
        return of_labels(spec.labels, [[answer] for answer in answers], gold)

    @classmethod
    def majority_rows(cls, spec, train_labels, eval_labels, groups):
        most = torch.tensor(train_labels).float().mean(0) - 0.5
        return cls.rows(spec, most.expand(len(eval_labels), -1), {"labels": torch.tensor(eval_labels)})
'''


@pytest.fixture
def each_label(tmp_path, monkeypatch):
    """A kind of head that is one file more in the package."""
    (tmp_path / "each_label.py").write_text(EACH_LABEL)
    monkeypatch.setattr(ptune.heads, "__path__", [*ptune.heads.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield HeadSpec("x", "each_label", ("a", "b", "c"), ("macro_accuracy",), "macro_accuracy")
    sys.modules.pop("ptune.heads.each_label", None)
    vars(ptune.heads).pop("each_label", None)


def test_a_new_kind_is_one_file_whose_table_has_as_many_columns_as_the_task_needs(backbone, batch, hidden, each_label):
    module = head_for(each_label, backbone.spec, 0.0)
    labels = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0]])
    inputs = batch(LENGTHS, labels=labels)
    scores = module(hidden, inputs, backbone)
    total, count = module.loss(scores, inputs)
    assert_close(total / count, F.binary_cross_entropy_with_logits(scores, labels.float()))
    metric = Scores(each_label)
    for rows in (slice(0, 1), slice(1, 4)):
        metric.update(scores[rows], {"labels": labels[rows]})
    expected = float(((scores > 0) == labels.bool()).double().mean())
    assert metric.compute() == {"macro_accuracy": pytest.approx(expected)}
    found = majority(each_label, [[1, 0, 1], [1, 0, 0], [0, 0, 1]], labels.tolist())
    assert found == {"macro_accuracy": pytest.approx((3 + 2 + 2 + 1) / 12)}
