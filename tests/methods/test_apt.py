"""Adaptive prefix tuning: its equation in loops, its start, and what it does with padding and packed texts."""

import pytest
import torch
from families import FAMILIES, often, text
from torch.testing import assert_close

from ptune.backbone.traits import numbered
from ptune.errors import InputError
from ptune.methods.apt import APT
from ptune.prompts import Prompts
from ptune.tuning.peft_gaps import gaps

P, L, D = 4, 3, 32  # of the tiny models
LENGTHS = (7, 5, 3)


@pytest.fixture
def build(tiny, head):
    """A model with its weights loaded, whose gates are far from their start: build("gpt2", layers="last:1")."""

    def make(family="bert", seed=0, **arguments):
        torch.manual_seed(seed)
        model = APT(**{"backbone": tiny(family), "head": head("classify"), "length": P} | arguments)
        model.configure_model()
        for value in model.prompt.parameters():
            torch.nn.init.normal_(value)
        return model.eval()

    return make


def read(backbone, inputs, prompts):
    """What the attention of each layer reads, "b t d"."""
    seen = []

    def record(module, args, kwargs):
        seen.append(args[0] if args else kwargs["hidden_states"])

    hooks = [module.register_forward_pre_hook(record, with_kwargs=True) for module in numbered(backbone.model)]
    backbone(inputs, prompts)
    for hook in hooks:
        hook.remove()
    turned = backbone.spec.config.model_type == "xlnet"
    return [hidden.transpose(0, 1) if turned else hidden for hidden in seen]


def weighted_by_loops(backbone, inputs, model):
    """`scale_i a_i [P_ik, P_iv]` of each text, from the lowest layer up: a tuple of layers "2 b h p k"."""
    prefix, weight, scale = model.encoder(), model.prompt.weight, model.prompt.scale
    found = [layer.repeat(1, len(LENGTHS), 1, 1, 1) for layer in prefix]
    for i, layer in enumerate(model.layers):
        hidden = read(backbone, inputs, Prompts(prefix=tuple(found), layers=model.layers))[layer]
        for b, length in enumerate(LENGTHS):
            for j in range(P):
                scores = [hidden[b, t] @ weight[i, :, j] for t in range(length)]
                a = sum(1 / (1 + torch.exp(-score)) for score in scores) / length
                found[i][:, b, :, j] = scale[i] * a * prefix[i][:, 0, :, j]
    return tuple(found)


@torch.no_grad()
@pytest.mark.parametrize("layers", ["all", pytest.param("last:2", marks=pytest.mark.deep)])
@pytest.mark.parametrize("family", often(FAMILIES, ("bert", "albert", "llama", "xlnet")))
def test_keys_and_values_are_weighted_as_the_papers_equation_says(build, batch, family, layers):
    model = build(family, layers=layers)
    backbone, inputs = model.backbone, batch(LENGTHS)
    found = backbone(inputs, model.prompts(inputs))
    plain = Prompts(prefix=weighted_by_loops(backbone, inputs, model), layers=model.layers)
    assert_close(text(found, inputs), text(backbone(inputs, plain), inputs), atol=1e-5, rtol=1e-5)
    unweighted = backbone(inputs, Prompts(prefix=model.encoder(), layers=model.layers))
    assert text(found - unweighted, inputs).abs().max() > 0.01


def test_at_the_start_each_vector_counts_about_half(tiny, head, batch):
    model = APT(backbone=tiny("bert"), head=head("classify"))
    model.configure_model()
    prompts, module = model.prompts(batch()), numbered(model.backbone.model)[0]
    weights = prompts.entered(module, model.backbone.embed(batch()["input_ids"])).weights
    assert weights.shape == (3, 1, 20, 1)
    assert_close(weights, torch.full_like(weights, 0.5), atol=0.05, rtol=0)


def test_a_gate_sees_the_text_alone_and_not_another_row(build, batch):
    model, inputs = build(), batch(LENGTHS)
    with torch.no_grad():
        together = model.backbone(inputs, model.prompts(inputs))
        for row, length in enumerate(LENGTHS):
            alone = {"input_ids": inputs["input_ids"][row : row + 1, :length]}
            assert_close(model.backbone(alone, model.prompts(alone))[0], together[row, :length], atol=1e-5, rtol=1e-5)


def test_a_family_without_a_prefix_is_refused_and_so_is_peft(build):
    with pytest.raises(InputError, match=r"'bloom'.* cannot be prompted in its layers"):
        build("bloom")
    assert gaps(build()) == ["model: APT has no prompt for PEFT; PTuningV2, PromptTuning and PTuning do."]
