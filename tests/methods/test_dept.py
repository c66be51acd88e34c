"""DePT: m vectors in the slots, and row i of A B added to the word embedding of the text's token i."""

import pytest
import torch
from families import FAMILIES, SOME, often, text
from torch.testing import assert_close

from ptune.errors import InputError
from ptune.methods.dept import DePT
from ptune.methods.prompt_tuning import PromptTuning
from ptune.prompts import Prompts
from ptune.tuning.peft_gaps import gaps

P, S = 2, 5
SLOTS = torch.tensor([False, True, True, False, False, False, False]).expand(3, -1)


@pytest.fixture
def build(tiny, head):
    """A model whose tensors are random: build("gpt2", tokens=3)."""

    def make(family="bert", method=DePT, random=True, **arguments):
        torch.manual_seed(0)
        given = {"length": P} | ({"tokens": S, "rank": 3} if method is DePT else {})
        model = method(**{"backbone": tiny(family), "head": head("classify")} | given | arguments)
        model.configure_model()
        for value in model.prompt.parameters() if random else ():
            value.data.normal_()
        return model.eval()

    return make


@torch.no_grad()
@pytest.mark.parametrize("family", often(FAMILIES, of=(*SOME, "electra")))
def test_hidden_states_are_those_of_the_papers_equation_in_loops(build, batch, monkeypatch, family):
    """The words of the plain backbone are replaced by [P; E + A B], written down one token at a time."""
    model = build(family)
    inputs, backbone = batch(slots=SLOTS), model.backbone
    words, (b, t) = backbone.embed(inputs["input_ids"]).clone(), SLOTS.shape
    for row in range(b):
        slot = token = 0
        for i in range(t):
            if not inputs["attention_mask"][row, i]:
                continue
            if SLOTS[row, i]:
                words[row, i] = model.prompt.vectors[slot]
                slot += 1
            else:
                words[row, i] += sum(model.prompt.a[token, r] * model.prompt.b[r] for r in range(3))
                token += 1
    found = backbone(inputs, model.prompts(inputs))
    everywhere = torch.ones_like(SLOTS)
    expected = backbone(inputs | {"slots": everywhere}, Prompts(embeds=words))
    assert_close(text(found, inputs), text(expected, inputs), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "distilbert", "xlnet"])
def test_padding_on_either_side_changes_nothing(build, batch, family):
    model, hidden = build(family), []
    for side in ("right", "left"):
        inputs = batch((7, 5, 4), side=side)
        first = inputs["attention_mask"].argmax(1, keepdim=True)
        place = torch.arange(7) - first
        inputs["slots"] = (place >= 1) & (place <= P)
        hidden.append(text(model.backbone(inputs, model.prompts(inputs)), inputs))
    assert_close(*hidden, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_tokens_behind_the_last_row_and_padding_and_slots_get_nothing(build, batch):
    model = build(tokens=3)
    inputs = batch(slots=SLOTS)
    added = model.prompts(inputs).added
    changed = added.abs().sum(2) > 0
    own = inputs["attention_mask"].bool() & ~SLOTS
    assert torch.equal(changed, own & (own.cumsum(1) <= 3))


@torch.no_grad()
def test_training_starts_from_prompt_tuning(build, batch):
    model, plain = (build(method=method, random=False) for method in (DePT, PromptTuning))
    plain.prompt.vectors.copy_(model.prompt.vectors)
    plain.head.load_state_dict(model.head.state_dict())
    inputs = batch(slots=SLOTS)
    assert torch.equal(model(inputs), plain(inputs))


def test_the_pair_has_its_own_rate(build, fit, batch):
    model = build(lr=0.2, pair_lr=0.03, head_lr=0.01, schedule="constant").train()
    groups = fit(model, [batch(slots=SLOTS, labels=torch.tensor([0, 1, 2]))]).optimizers[0].param_groups
    assert {group["name"]: group["lr"] for group in groups} == {
        "prompt": 0.2,
        "pair": 0.03,
        "head": 0.01,
        "head/1d": 0.01,
    }


def test_the_numbers_are_those_of_the_prompt_that_it_decomposes(build):
    """(l - p) e = (s + e) r, here for l = 12, e = 32."""
    model = build(length=2, tokens=32, rank=5)
    assert sum(value.numel() for value in model.prompt.parameters()) == 12 * 32


class Texts:
    """The least that is asked of a data module."""

    slots, max_length = P, S + P

    def __init__(self, backbone):
        self.backbone = backbone

    def recipe(self):
        return {}

    learned = recipe


def test_texts_of_more_tokens_than_rows_are_refused_before_training(build):
    model = build()
    data = Texts(model.spec.name)
    model.check_data(data)
    data.max_length = S + P + 3
    with pytest.raises(InputError, match=r"tokens: 5, but data.max_length: 10 leaves 8 tokens .* --model.tokens 8 or"):
        model.check_data(data)


def test_peft_has_no_such_prompt(build):
    assert "model: DePT has no prompt for PEFT" in gaps(build("gpt2"))[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "length: 0 must be at least 1"),
        ({"rank": 0}, "rank: 0 must be at least 1"),
        ({"tokens": 0}, "tokens: 0 must be at least 1"),
        ({"pair_lr": 0.0}, "pair_lr: 0.0 must be greater than 0"),
    ],
)
def test_bad_arguments_are_refused(build, arguments, message):
    with pytest.raises(InputError, match=message):
        build(**arguments)
