"""A tuned model compiles into one graph a batch length, and not again when a length comes back."""

import pytest
import torch
from methods_table import TABLE
from torch.testing import assert_close

from ptune.backbone import Backbone

P = 3


def batch_of_length(batch, t, seed, slots):
    """Three texts, the longest of t tokens, with slots behind the first token."""
    inputs = batch((t, t - 1, t - 3), seed=seed, labels=torch.tensor([0, 1, 2]))
    where = torch.zeros(3, t, dtype=torch.bool)
    where[:, 1 : 1 + P] = True
    return inputs | {"slots": where} if slots else inputs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "method", "dynamic", "graphs"),
    [
        ("bert", "prefix", False, 3),
        pytest.param("bert", "soft prompt", False, 3, marks=pytest.mark.deep),
        pytest.param("bert", "prefix, hidden", False, 3, marks=pytest.mark.deep),
        pytest.param("deberta-v2", "prefix, hidden", False, 3, marks=pytest.mark.deep),
        pytest.param("llama", "prefix", False, 3, marks=pytest.mark.deep),
        pytest.param("llama", "memory", False, 3, marks=pytest.mark.deep),
        pytest.param("bert", "decomposed prompt", False, 3, marks=pytest.mark.deep),
        pytest.param("llama", "soft prompt", False, 3, marks=pytest.mark.deep),
        (
            "llama",
            "prefix, identity",
            None,
            2,
        ),  # torch's default compiles for every length at the second one
    ],
)
def test_there_are_as_many_graphs_as_lengths(tiny, head, batch, family, method, dynamic, graphs):
    case = TABLE[method]
    model = case.method(backbone=tiny(family), head=head("classify"), head_dropout=0.0, **case.given(P, certain=True))
    model.configure_model()
    compiled_graphs = []

    def count(graph, inputs):
        compiled_graphs.append(graph)
        return graph

    def loss(inputs):
        total, rows = model.head.loss(model(inputs), inputs)
        return total / rows

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend=count)
    for seed, t in enumerate((8, 16, 24, 8, 24)):
        inputs = batch_of_length(batch, t, seed, model.slots)
        weights = [*model.trained().values()]
        assert_close(compiled(inputs), expected := loss(inputs), atol=1e-5, rtol=1e-5)
        found = torch.autograd.grad(compiled(inputs), weights)
        assert_close(found, torch.autograd.grad(expected, weights), atol=1e-5, rtol=1e-4)
    if dynamic is None:
        assert len(compiled_graphs) <= graphs, "torch may compile for every length at once"
    else:
        assert len(compiled_graphs) == graphs


def test_dropout_of_a_prefix_is_a_part_of_the_graph(tiny, head, batch):
    case = TABLE["prefix"]
    model = case.method(backbone=tiny("bert"), head=head("classify"), length=P, prefix_dropout=0.5)
    model.configure_model()
    torch.compiler.reset()
    scores = torch.compile(model.train(), fullgraph=True, dynamic=True, backend="eager")(batch((7, 7, 7)))
    gradients = torch.autograd.grad(scores.sum(), [*model.prompt.parameters()])
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_packed_texts_compile(tiny, family):
    backbone = Backbone(tiny(family))
    batch = {"input_ids": torch.arange(5, 20)[None], "position_ids": torch.tensor([[*range(8), *range(7)]])}
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(backbone, fullgraph=True, backend="aot_eager")(batch)
        assert_close(compiled, backbone(batch), atol=1e-5, rtol=1e-5)
