"""Fine-tuning and linear probe, which add nothing to the backbone."""

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModel

from ptune.methods.fine_tuning import FineTuning
from ptune.methods.linear_probe import LinearProbe

LABELS = torch.tensor([0, 1, 2])
FAMILIES = ("bert", "roberta", "electra", "gpt2", "llama", "distilbert", "xlnet", "deberta", "deberta-v2", "mpnet")

each_method = pytest.mark.parametrize("method", [FineTuning, LinearProbe])


@pytest.fixture
def build(tiny, head):
    """A model with its weights loaded."""

    def make(method, family="bert", **arguments):
        torch.manual_seed(0)
        model = method(**{"backbone": tiny(family), "head": head("classify")} | arguments)
        model.configure_model()
        return model

    return make


def loss_of(model, inputs, seed):
    """The training loss of a batch, its dropout drawn from a seed."""
    torch.manual_seed(seed)
    total, count = model.train().head.loss(model(inputs), inputs)
    return total / count


@each_method
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_head_on_the_pooled_backbone(build, tiny, batch, method, family):
    model = build(method, family, pool="first").eval()
    plain = AutoModel.from_pretrained(tiny(family)).eval()
    with torch.no_grad():
        expected = model.head.linear(plain(**batch()).last_hidden_state[:, 0])
        part = model.backbone.reads_part  # products of fewer tokens are rounded otherwise
        assert_close(model(batch()), expected, atol=1e-6 * part, rtol=1e-5 * part)


@pytest.mark.parametrize("family", FAMILIES)
def test_fine_tuning_drops_out_in_training(build, batch, family):
    model = build(FineTuning, family, head_dropout=0.0)
    drops = not torch.equal(loss_of(model, batch(labels=LABELS), 1), loss_of(model, batch(labels=LABELS), 2))
    assert drops == (family != "llama"), "Llama's config has none"
    model.eval()
    assert torch.equal(model(batch()), model(batch()))


@each_method
def test_without_any_dropout_two_training_passes_are_equal(build, batch, method):
    model = build(method, backbone_dropout=False, head_dropout=0.0)
    assert torch.equal(loss_of(model, batch(labels=LABELS), 1), loss_of(model, batch(labels=LABELS), 2))


def test_a_linear_probe_drops_out_before_its_head_alone(build, batch):
    model = build(LinearProbe, head_dropout=0.5).train()
    hidden = [model.backbone(batch()) for _ in range(2)]
    assert torch.equal(*hidden)
    assert not torch.equal(loss_of(model, batch(labels=LABELS), 1), loss_of(model, batch(labels=LABELS), 2))


def test_checkpointing_recomputes_the_same_loss_and_gradients_dropout_included(build, batch, sdpa_keys):
    runs = []
    for checkpointing in (False, True):
        model = build(FineTuning, checkpointing=checkpointing)
        loss = loss_of(model, batch(labels=LABELS), 1)
        sdpa_keys.clear()
        loss.backward()
        assert len(sdpa_keys) == 2 * checkpointing, "the backward pass begins with the third layer"
        runs.append((loss.detach(), [value.grad for value in model.trained().values()]))
    assert_close(*runs, atol=1e-6, rtol=1e-5)


def test_a_linear_probe_builds_no_graph_for_the_backbone(build, batch):
    model = build(LinearProbe)
    assert not model.backbone(batch()).requires_grad
    assert model(batch()).requires_grad


@pytest.mark.parametrize("kind", ["classify", "regress", "choice", "span", "tag"])
@each_method
def test_every_task_format_can_be_trained(build, batch, head, method, kind):
    labels = {
        "classify": torch.tensor([0, 1, 2, 0]),
        "regress": torch.tensor([0.5, 1.0, -1.0, 2.0]),
        "choice": torch.tensor([0, 1]),
        "span": torch.tensor([[1, 2], [0, 0], [2, 2], [1, 1]]),
        "tag": torch.tensor([[-100, 0, 1, -100, -100]] * 4),
    }[kind]
    inputs = batch(lengths=(5, 4, 3, 5), labels=labels)
    model = build(method, head=head(kind), head_dropout=0.0, backbone_dropout=False)
    optimizer = torch.optim.SGD(model.trained().values(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = loss_of(model, inputs, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[2] < losses[0]
