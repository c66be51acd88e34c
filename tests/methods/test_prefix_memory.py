"""Prefix-Tuning+: each head's attention plus phi(q)^T M, in every family that reads a prefix."""

import pytest
import torch
from families import EAGER, FAMILIES, LAYERS, SOME, often, text
from torch.nn import functional as F
from torch.testing import assert_close
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ptune.backbone import Backbone, attention
from ptune.errors import InputError
from ptune.inspect import look, picture, tables
from ptune.methods.prefix_memory import PrefixMemory
from ptune.prompts import Prompts
from ptune.tuning.peft_gaps import gaps


def memory_of(spec, seed=0):
    """Random matrices of every layer."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(spec.heads, k, k, generator=generator) for _, k in spec.kv_sizes)


@pytest.fixture
def build(tiny, head):
    """A model with random matrices: build("gpt2", layers="last:1")."""

    def make(family="bert", **arguments):
        model = PrefixMemory(**{"backbone": tiny(family), "head": head("classify")} | arguments)
        model.configure_model()
        for value in model.prompt.parameters():
            value.data.normal_()
        return model.eval()

    return make


@torch.no_grad()
@pytest.mark.parametrize("family", ["bert", "llama", "xlnet"])
def test_each_heads_output_is_the_papers_equation_in_loops(tiny, batch, monkeypatch, family):
    """Attention itself is transformers'; the added term is written down, one query at a time."""
    backbone, calls = Backbone(tiny(family)), []
    memory = memory_of(backbone.spec)

    def attend(module, query, key, value, mask, **kwargs):
        output, weights = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        for b in range(query.shape[0]):
            for h in range(query.shape[1]):
                for i in range(query.shape[2]):
                    phi = torch.stack([x if x > 0 else x.exp() - 1 for x in query[b, h, i]])
                    output[b, i, h] += sum(phi[n] * memory[module.prefix_layer][h, n] for n in range(len(phi)))
        calls.append(module.prefix_layer)
        return output, weights

    found = backbone(batch(), Prompts(memory=memory))
    own = {"xlnet": "ptune.backbone.families.attend"}.get(family)
    if own:
        monkeypatch.setattr(own, lambda *args, prefix, **kwargs: attend(*args, **kwargs))
        expected = backbone(batch(), Prompts(memory=memory))
    else:
        monkeypatch.setitem(attention.AttentionInterface._global_mapping, "ptune_sdpa", attend)
        expected = backbone(batch())
    assert calls == [*LAYERS]
    assert_close(text(found, batch()), text(expected, batch()), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", often(FAMILIES, of=(*SOME, "albert", "gemma4_text")))
def test_zero_matrices_are_the_backbone_and_those_of_each_layer_change_it(frozen, batch, family):
    backbone, inputs = frozen(family), batch()
    memory, plain = memory_of(backbone.spec), backbone(batch())
    zero = tuple(torch.zeros_like(layer) for layer in memory)
    assert_close(backbone(inputs, Prompts(memory=zero)), plain, atol=3e-6, rtol=0)
    whole = backbone(inputs, Prompts(memory=memory))
    for layer in LAYERS:
        one = backbone(inputs, Prompts(memory=memory[layer : layer + 1], layers=(layer,)))
        others = tuple(value if i == layer else zero[i] for i, value in enumerate(memory))
        assert_close(one, backbone(inputs, Prompts(memory=others)), atol=1e-5, rtol=1e-5)
        assert text(one - plain, inputs).abs().max() > 1e-3
        assert text(one - whole, inputs).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("family", often(FAMILIES))
def test_a_padded_batch_is_its_texts_one_by_one_and_eager_is_sdpa(frozen, batch, family):
    backbone, inputs = frozen(family), batch()
    prompts = Prompts(memory=memory_of(backbone.spec))
    together = backbone(inputs, prompts)
    for row, length in enumerate(inputs["attention_mask"].sum(1)):
        alone = backbone({"input_ids": inputs["input_ids"][row : row + 1, :length]}, prompts)
        assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)
    if family in EAGER:
        eager = frozen(family, "eager")(inputs, prompts)
        assert_close(text(eager, inputs), text(together, inputs), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_it_goes_together_with_a_prefix(frozen, batch, prefix):
    backbone, inputs = frozen("bert"), batch()
    kv, memory = prefix(backbone.spec), memory_of(backbone.spec)
    zero = tuple(torch.zeros_like(layer) for layer in memory)
    both, alone, none = (
        backbone(inputs, Prompts(prefix=kv, memory=memory)),
        backbone(inputs, Prompts(memory=memory)),
        backbone(inputs, Prompts(prefix=kv, memory=zero)),
    )
    assert_close(none, backbone(inputs, Prompts(prefix=kv)), atol=3e-6, rtol=0)
    assert min((both - alone).abs().max(), (both - none).abs().max()) > 1e-3


def test_training_starts_from_the_backbone(tiny, head, batch):
    model = PrefixMemory(backbone=tiny("bert"), head=head("classify"))
    model.configure_model()
    model.eval()
    with torch.no_grad():
        plain = model.head(model.backbone(batch()), batch(), model.backbone)
        assert_close(model(batch()), plain, atol=1e-5, rtol=1e-5)


def test_a_family_that_reads_no_prefix_is_refused_in_a_sentence(tiny, head):
    model = PrefixMemory(backbone=tiny("bloom"), head=head("classify"))
    with pytest.raises(InputError, match=r"'bloom'.* cannot be prompted in its layers: .*h\.0 to h\.2"):
        model.configure_model()


def test_peft_has_no_such_prompt_not_even_of_one_layer(build):
    for layers in ("all", "last:1"):
        assert "model: PrefixMemory has no prompt for PEFT" in gaps(build(layers=layers))[0]


def test_inspect_tells_the_norm_of_each_layers_matrices(build, batch):
    model = build(layers=[0, 2])
    found = look(model, batch())
    assert_close(found.matrices, torch.stack([value.norm(dim=(1, 2)).mean() for value in model.prompt.matrices]))
    told = tables(found, "x")
    assert f"| 2 | {found.matrices[1]:.3f} |" in told
    assert "attention weights" not in told
    pytest.importorskip("matplotlib")
    assert picture(found, "x").axes[-1].get_title() == "mean norm"


def test_layers_below_can_be_kept(build):
    assert build(layers="last:1").frozen_layers == 2


def test_the_feature_map_has_no_constant_part_which_would_be_the_same_for_all_queries():
    prompts = Prompts(memory=(torch.eye(4)[None],))
    module = torch.nn.Module()
    module.prefix_layer = 0
    query = torch.randn(1, 1, 9, 4)
    assert_close(prompts.recalled(module, query)[:, :, 0], F.elu(query)[:, 0])
    assert not prompts.recalled(module, torch.zeros_like(query)).any()
