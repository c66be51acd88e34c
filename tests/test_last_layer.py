"""The last layer is computed for the tokens that are read, and what is read of it stays the same."""

import pytest
import torch
from families import FAMILIES, often, prompted
from torch.testing import assert_close

import ptune
from ptune.tasks.spec import HeadSpec

READ_PART = ("bert", "roberta", "electra", "camembert", "xlm-roberta", "ernie", "deberta", "deberta-v2", "splinter")
"""Families in which one module adds the residual to the projected attention."""
PLACES = torch.tensor([[0, 2], [4, 1], [2, 2]])
CLASSIFY = HeadSpec("toy", "classify", ("no", "yes"), ("accuracy",), "accuracy")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", often((*FAMILIES, "splinter"), (*READ_PART, "gpt2", "llama", "xlnet", "albert")))
def test_the_states_that_are_read_and_their_gradients_are_those_of_a_whole_pass(frozen, batch, prefix, family, side):
    backbone, found = frozen(family), []
    assert backbone.reads_part == (family in READ_PART)
    inputs = batch((7, 5, 3), side=side)
    places = PLACES + (torch.tensor([[0], [2], [4]]) if side == "left" else 0)
    rows = torch.arange(3)[:, None]
    for read in (None, places):
        kv = prefix(backbone.spec, 4).requires_grad_()
        hidden = backbone(inputs, prompted(backbone, kv), read=read)
        part = hidden[rows, places]
        found.append((part.detach(), *torch.autograd.grad(part.square().sum(), kv)))
        if read is not None and family in READ_PART:
            assert not hidden.index_put((rows, places), torch.zeros(())).any(), "of no other token"
    assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


def computed(model, batch):
    """Scores of a batch, and how many tokens of each text the last feed-forward block computed."""
    seen = []
    block = model.backbone.model.encoder.layer[-1].intermediate
    hook = block.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    scores = model(batch)
    hook.remove()
    return scores, seen[0]


@pytest.mark.parametrize("method", ["PTuningV2", "LoRA", "FineTuning", "LinearProbe"])
@pytest.mark.parametrize("pool", ["first", "pooler", "mean"])
def test_a_method_computes_one_token_where_its_head_reads_one(tiny, batch, method, pool):
    inputs = batch((7, 5, 3))
    model = getattr(ptune, method)(backbone=tiny("bert"), head=CLASSIFY, pool=pool)
    model.configure_model()
    scores, tokens = computed(model.eval(), inputs)
    assert tokens == (7 if pool == "mean" else 1)
    whole = model.head(model.backbone(inputs, model.prompts(inputs)), inputs, model.backbone)
    assert_close(scores, whole, atol=1e-5, rtol=1e-5)
    one, other = (torch.autograd.grad(s.square().sum(), model.trained().values()) for s in (scores, whole))
    assert_close(one, other, atol=1e-5, rtol=1e-4)
