"""Where a text stands in its row changes nothing: padding on either side, or packed with others."""

import pytest
import torch
from families import CAUSAL, FAMILIES, UNSHIFTED, distance, prompted, text
from torch.testing import assert_close

from ptune.errors import InputError
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.prompts import InputGate, Late, Prompts

P = 4
LENGTHS = (7, 5, 3)


def prompts_of(kind, backbone, prefix):
    """No prompts, a prefix, a gated one, or one that shifts positions."""
    kv = prefix(backbone.spec, P)
    gate = torch.ones(backbone.spec.layers, backbone.spec.heads)
    return {
        "plain": None,
        "prefix": prompted(backbone, kv),
        "gated": prompted(backbone, kv, gate=gate),
        "shifted": prompted(backbone, kv, shift=P),
    }[kind]


def packed(inputs, pad=0):
    """The texts of a batch in one row behind each other, then `pad` tokens of padding."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    ids = torch.cat([text(inputs["input_ids"], inputs), torch.ones(pad, dtype=torch.long)])[None]
    positions = torch.cat([*(torch.arange(length) for length in lengths), torch.arange(pad)])[None]
    mask = {"attention_mask": (torch.arange(ids.shape[1]) < sum(lengths)).long()[None]} if pad else {}
    return {"input_ids": ids, "position_ids": positions} | mask


@pytest.mark.parametrize("kind", ["plain", "prefix", "gated", "shifted"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_the_left_is_padding_on_the_right(frozen, batch, prefix, family, kind):
    if kind == "shifted" and family in UNSHIFTED:
        pytest.skip("takes no positions from outside")
    backbone = frozen(family)
    prompts = prompts_of(kind, backbone, prefix)
    with torch.no_grad():
        right, left = (
            text(backbone(inputs, prompts), inputs) for inputs in (batch(LENGTHS), batch(LENGTHS, side="left"))
        )
    assert_close(left, right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pad", [0, 2])
@pytest.mark.parametrize("kind", ["plain", "prefix", "gated", "shifted"])
@pytest.mark.parametrize("family", CAUSAL)
def test_packed_texts_are_texts_in_rows_of_their_own(frozen, batch, prefix, family, kind, pad):
    backbone = frozen(family)
    prompts, inputs = prompts_of(kind, backbone, prefix), batch(LENGTHS)
    with torch.no_grad():
        rows, together = text(backbone(inputs, prompts), inputs), backbone(packed(inputs, pad), prompts)
    assert_close(together[0, : sum(LENGTHS)], rows, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["mpt", "falcon"])
def test_packed_texts_of_a_family_without_a_prefix_are_apart_too(frozen, batch, family):
    backbone, inputs = frozen(family), batch(LENGTHS)
    with torch.no_grad():
        rows, together = text(backbone(inputs), inputs), backbone(packed(inputs, pad=2))
    assert_close(together[0, : sum(LENGTHS)], rows, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
@pytest.mark.parametrize("kind", ["plain", "prefix", "gated"])
def test_packed_texts_are_apart_under_autocast(frozen, batch, prefix, family, kind):
    backbone = frozen(family)
    prompts, inputs = prompts_of(kind, backbone, prefix), batch(LENGTHS)
    with torch.no_grad():
        exact = text(backbone(inputs, prompts), inputs)
        with torch.autocast("cpu", torch.bfloat16):
            rows, together = text(backbone(inputs, prompts), inputs), backbone(packed(inputs), prompts)[0]
    assert distance(together, exact) < 3 * distance(rows, exact) + 1e-3, "bf16 alone, on this machine"
    assert distance(rows, exact) < 0.03


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_the_prefix_of_a_packed_row_learns_from_every_text(frozen, batch, prefix, family):
    backbone, gradients = frozen(family), []
    for inputs in (batch(LENGTHS), packed(batch(LENGTHS))):
        kv = prefix(backbone.spec, P).requires_grad_()
        hidden = backbone(inputs, Prompts(prefix=kv))
        (text(hidden, inputs) if "attention_mask" in inputs else hidden).pow(3).sum().backward()
        gradients.append(kv.grad)
    assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_each_packed_text_has_its_soft_prompt(frozen, batch, family):
    backbone, inputs = frozen(family), batch(LENGTHS)
    slots = torch.zeros(3, 7, dtype=torch.bool)
    slots[:, :2] = True
    prompts = Prompts(embeds=torch.randn(1, 2, 32))
    with torch.no_grad():
        rows = text(backbone(inputs | {"slots": slots}, prompts), inputs)
        together = backbone(packed(inputs) | {"slots": text(slots, inputs)[None]}, prompts)
    assert_close(together[0], rows, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(input_gate=InputGate(torch.zeros(2, 32, P), torch.ones(2))),
        Prompts(late=Late(1, lambda hidden, text: torch.zeros(1, P, 32))),
        Prompts(embeds=torch.zeros(3, P, 32)),
        Prompts(added=torch.zeros(1, sum(LENGTHS), 32)),
    ],
    ids=["input gate", "late", "one a text", "added"],
)
def test_packed_texts_have_no_prompt_that_is_made_for_one_text(frozen, batch, prompts):
    with pytest.raises(InputError, match="position_ids: packed texts would share a prompt that is made for one text"):
        frozen("llama")(packed(batch(LENGTHS)), prompts)


@pytest.mark.parametrize(
    "family", ["openai-gpt", "bloom", "gpt_oss", "bert", "xlnet", "t5", "modernbert", "deberta-v2"]
)
def test_a_family_whose_packed_texts_would_see_each_other_is_refused(frozen, batch, family):
    with pytest.raises(InputError, match=rf"position_ids: .*'{family}'.* give each text a row of its own"):
        frozen(family)(packed(batch()))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_scores_of_a_method_do_not_depend_on_the_side_of_the_padding(tiny, batch, head, family, kind):
    model = PTuningV2(backbone=tiny(family), head=head(kind), length=P)
    model.configure_model()
    model.eval()
    with torch.no_grad():
        right, left = (model(batch(LENGTHS, side=side)) for side in ("right", "left"))
        if kind == "tag":
            right, left = text(right, batch(LENGTHS)), text(left, batch(LENGTHS, side="left"))
    assert_close(left, right, atol=1e-5, rtol=1e-5)
