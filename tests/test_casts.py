"""A frozen weight is cast once under autocast, and to the same numbers as autocast's."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.pytorch_utils import Conv1D

from ptune.backbone import Backbone
from ptune.backbone.casts import CLASSES, KeepsCast
from ptune.prompts import Prompts

P = 4


def passed(backbone, inputs, kv):
    """Hidden states under autocast, and the gradient of the prefix."""
    leaf = kv.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = backbone(inputs, Prompts(prefix=leaf))
    hidden.float().pow(3).mean().backward()
    return hidden.detach(), leaf.grad


class Casts(TorchDispatchMode):
    """Counts the copies in 16 bits that are made of matrices of these weights."""

    def __init__(self, weights):
        super().__init__()
        self.places, self.count = {value.data_ptr() for value in weights if value.ndim == 2}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default:
            self.count += args[0].data_ptr() in self.places
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_it_is_autocast_bit_for_bit_and_casts_in_the_first_pass_alone(tiny, batch, prefix, family):
    backbone, inputs = Backbone(tiny(family)).requires_grad_(False), batch()
    layers = [module for module in backbone.model.modules() if isinstance(module, KeepsCast)]
    kv, counts, found = prefix(backbone.spec, P), [], []
    for _ in range(2):
        with Casts(backbone.model.parameters()) as casts:
            found.append(passed(backbone, inputs, kv))
        counts.append(casts.count)
    used = len([layer for layer in layers if layer._kept])
    assert counts == [used, 0]
    assert used >= 3 * 4, "three layers of at least four matrices"
    original = {cls: base for base, cls in CLASSES.items()}
    for module in layers:
        module.__class__ = original[type(module)]
    expected = passed(backbone, inputs, kv)
    for pair in found:
        assert_close(pair, expected, atol=0, rtol=0)


@pytest.mark.parametrize("base", CLASSES)
def test_a_layer_follows_its_weight_and_what_it_is_asked_for(base):
    layer, x = base(6, 5) if base is not Conv1D else base(5, 6), torch.randn(2, 3, 6)
    plain = layer(x)
    names = set(layer.state_dict())
    layer.__class__ = CLASSES[base]
    layer.requires_grad_(False)
    assert torch.equal(layer(x), plain), "without autocast"

    def product(dtype):
        weight = layer.weight.mT if base is Conv1D else layer.weight
        return F.linear(x.to(dtype), weight.to(dtype), layer.bias.to(dtype))

    leaf = x.clone().requires_grad_()
    for dtype in (torch.bfloat16, torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            with torch.inference_mode():
                assert torch.equal(layer(x), product(dtype))
            layer(leaf).sum().backward()
        with torch.no_grad():
            layer.weight.mul_(2)
    assert leaf.grad.any()
    assert set(layer.state_dict()) == names
    layer.weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).sum().backward()
    assert layer.weight.grad.any(), "a trained weight is no copy"
