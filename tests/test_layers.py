"""The keys and values that layers make of vectors are those that they make of a text with such hidden states."""

import pytest
import torch
from families import FAMILIES, UNSHARED, often
from test_conformance import BY_HAND
from torch.testing import assert_close

from ptune.backbone import Backbone
from ptune.backbone.visitor import Visitor
from ptune.errors import InputError

LAYERS = (0, 1, 2)
each_family = pytest.mark.parametrize("family", often(FAMILIES))


def vectors_of(spec, p=4, seed=0):
    """p random vectors for each layer."""
    return torch.randn(3, p, spec.width, generator=torch.Generator().manual_seed(seed))


@each_family
def test_what_the_attentions_read_of_a_text_becomes_the_texts_own_keys_and_values(tiny, batch, family):
    backbone = Backbone(tiny(family, **UNSHARED.get(family, {})))
    ids = batch(lengths=(6,))["input_ids"]
    inputs = backbone.layers.inputs(input_ids=ids)
    assert [hidden.shape for hidden in inputs] == [(6, backbone.spec.width)] * 3
    with torch.no_grad():
        found = backbone.layers.project(inputs, LAYERS)
        assert_close(found, backbone.keys_values(ids), atol=1e-6, rtol=1e-6)
        some = backbone.layers.project(inputs[::2], (0, 2))
    assert_close(some, found[::2], atol=0, rtol=0)


@each_family
def test_the_vectors_of_each_layer_reach_its_own_keys_and_values_alone(tiny, family):
    backbone = Backbone(tiny(family, **UNSHARED.get(family, {}))).requires_grad_(False)
    backbone.layers.require_projections(LAYERS, 4)
    vectors = vectors_of(backbone.spec).requires_grad_()
    for layer, pair in enumerate(backbone.layers.project(vectors.unbind(), LAYERS)):
        for half in pair:
            gradient = torch.autograd.grad(half.pow(3).sum(), vectors, retain_graph=True)[0]
            assert (gradient[layer].abs().amax(1) > 0).all(), "of every vector"
            assert not gradient[[other for other in LAYERS if other != layer]].any()


@torch.no_grad()
@pytest.mark.parametrize("name", BY_HAND)
def test_keys_and_values_equal_each_familys_formula(tiny, name):
    family, (formula, sizes) = name.replace("v3", "v2"), BY_HAND[name]
    backbone = Backbone(tiny(family, **sizes))
    vectors, visitor = vectors_of(backbone.spec), Visitor()
    backbone.layers.require_projections(LAYERS, 4)
    backbone.model(input_ids=torch.tensor([[5, 6, 7, 8]]), prefix=visitor)
    for layer, pair in enumerate(backbone.layers.project(vectors.unbind(), LAYERS)):
        hidden = vectors[layer][:, None] if family == "xlnet" else vectors[layer][None]
        _, *expected = formula(backbone.model, visitor.modules[layer], hidden, layer)[:3]
        assert_close(pair, torch.stack(expected).transpose(2, 3), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", UNSHARED)
def test_layers_that_read_the_keys_of_another_are_refused_by_number(tiny, family):
    layers = Backbone(tiny(family)).layers
    layers.require_projections((0, 1), 4)
    with pytest.raises(InputError, match=rf"form: 'hidden', but layers \[2\] of .*'{family}'.* have no projections"):
        layers.require_projections(LAYERS, 4)


def test_more_vectors_than_positions_are_refused(tiny):
    with pytest.raises(InputError, match=r"length: 49 vectors do not fit into the 48 positions of .*; use 48 or less"):
        Backbone(tiny("bert")).layers.require_projections(LAYERS, 49)


@pytest.mark.parametrize("attention", ["eager", "flex"])
def test_no_attention_is_computed_whatever_the_function(tiny, attention):
    plain, other = (Backbone(tiny("bert"), attention=function).layers for function in ("sdpa", attention))
    vectors = vectors_of(Backbone(tiny("bert")).spec).unbind()
    for layers in (plain, other):
        layers.require_projections(LAYERS, 4)
    assert_close(other.project(vectors, LAYERS), plain.project(vectors, LAYERS), atol=0, rtol=0)
