"""Late prompt tuning: the authors' generators and layers, one text at a time, and what lies below is kept."""

import json

import pytest
import runs
import torch
from families import FAMILIES, UNCUT, often
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import AutoModel

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.inspect import look, tables
from ptune.methods.late_prompt_tuning import LatePromptTuning
from ptune.tuning.peft_gaps import gaps

P = 2
LENGTHS = (9, 6, 3)
GENERATORS = ("none", "token", "average", "max")
each_generator = pytest.mark.parametrize("generator", GENERATORS)


@pytest.fixture
def build(tiny, head):
    """A model with its weights loaded: build("gpt2", generator="max")."""

    def make(family="bert", seed=0, **arguments):
        torch.manual_seed(seed)
        model = LatePromptTuning(
            **{"backbone": tiny(family), "head": head("classify"), "length": P, "bottleneck": 8} | arguments
        )
        model.configure_model()
        for value in model.prompt.parameters():
            torch.nn.init.normal_(value)
        return model.eval()

    return make


@pytest.fixture
def inputs(batch):
    """Texts whose slots lie at different places, one with a single token of its own."""
    slots = torch.zeros(3, 9, dtype=torch.bool)
    slots[0, [1, 5]] = slots[1, [0, 1]] = slots[2, [1, 2]] = True
    return batch(LENGTHS, slots=slots)


def generated(prompt, generator, hidden, causal):
    """The vectors of one text "t d", as the authors compute them."""
    if generator == "none":
        return prompt.vectors
    if generator == "token":
        return prompt.up(F.relu(prompt.down(hidden[-1 if causal else 0]))).view(P, -1)
    pool = F.adaptive_avg_pool1d if generator == "average" else F.adaptive_max_pool1d
    return prompt.up(F.relu(pool(prompt.down(hidden).T[None], P)[0].T))


def by_hand(path, family, ids, slots, n, make):
    """The last hidden states of one text whose slots are filled at layer n, by the layers of transformers."""
    model = AutoModel.from_pretrained(path).eval()
    text = ids[~slots][None]
    if family == "bert":
        hidden, layers, last = model.embeddings(text), model.encoder.layer, torch.nn.Identity()
    else:
        hidden, layers, last = model.wte(text) + model.wpe(torch.arange(text.shape[1])), model.h, model.ln_f
    whole = torch.zeros(1, len(ids), hidden.shape[2])
    for i, layer in enumerate(layers):
        if i == n:
            whole[:, slots], whole[:, ~slots] = make(hidden[0]), hidden
            hidden = whole
        found = layer(hidden)
        hidden = found[0] if isinstance(found, tuple) else found
    return last(hidden)[0]


@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
@each_generator
def test_it_is_the_authors_generator_between_the_layers_of_transformers(build, inputs, generator, family, layer):
    model = build(family, generator=generator, layer=layer)
    together = model.backbone(inputs, model.prompts(inputs))
    for row, length in enumerate(LENGTHS):
        ids, slots = inputs["input_ids"][row, :length], inputs["slots"][row, :length]
        expected = by_hand(
            model.hparams["backbone"],
            family,
            ids,
            slots,
            layer,
            lambda hidden: generated(model.prompt, generator, hidden, family == "gpt2"),
        )
        assert_close(together[row, :length], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", often(FAMILIES, ("bert", "llama", "xlnet", "modernbert")))
def test_a_family_takes_it_with_padding_or_says_why_not(build, inputs, family):
    if family in UNCUT:
        with pytest.raises(InputError, match=rf"'{family}'.* cannot begin at layer 1: its layers|no list"):
            build(family)
        return
    model = build(family)
    together = model.backbone(inputs, model.prompts(inputs))
    for row, length in enumerate(LENGTHS):
        alone = {name: values[row : row + 1, :length] for name, values in inputs.items()}
        assert_close(model.backbone(alone, model.prompts(alone))[0], together[row, :length], atol=1e-5, rtol=1e-5)
    other = inputs | {"input_ids": inputs["input_ids"].masked_fill(inputs["slots"], 7)}
    assert torch.equal(model.backbone(other, model.prompts(other)), together), "the tokens of slots are not read"


def test_the_middle_layer_is_the_default_and_others_are_refused(tiny, head):
    common = {"backbone": tiny("bert"), "head": head("classify")}
    assert LatePromptTuning(**common).layer == 1
    assert LatePromptTuning(**common).first_layer == 1
    for layer in (0, 3):
        with pytest.raises(InputError, match=rf"layer: {layer} must be from 1 to 2; PromptTuning is the prompt at the"):
            LatePromptTuning(**common, layer=layer)
    one = common | {"backbone": tiny("bert", num_hidden_layers=1)}
    with pytest.raises(InputError, match="has 1 layer, so no middle one"):
        LatePromptTuning(**one)


@pytest.mark.parametrize("generator", ["none", "max"])
def test_what_lies_below_is_computed_once_and_a_run_is_the_same(generator, tmp_path, monkeypatch):
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    options = {"model__length": 3, "model__generator": generator}
    calls, below = [], Backbone.below
    monkeypatch.setattr(Backbone, "below", lambda self, *args: calls.append(len(args[0])) or below(self, *args))
    runs.fit(tmp_path / "plain", "LatePromptTuning", **options)
    plain = len(calls)
    runs.fit(tmp_path / "kept", "LatePromptTuning", cache_frozen=True, **options)
    assert plain - (len(calls) - plain) >= 10, "3 training batches and 2 of validation in 2 epochs are not computed"
    for one, other in zip(*(lines(tmp_path / name) for name in ("kept", "plain")), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def lines(run_dir) -> list[dict]:
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "loss" in k or "accuracy" in k} for row in found]


def test_it_is_inspected_by_norms_and_attention_above_and_peft_is_refused(build, inputs):
    model = build(attention="eager", layer=2)
    found = look(model, inputs)
    assert found.layers == (2,)
    assert found.attention.shape == (1, P)
    with torch.no_grad():
        states = model.backbone.below(inputs, 2)[:1]
        text = (inputs["attention_mask"].bool() & ~inputs["slots"])[:1]
        assert_close(found.vectors, model.prompt(states, text)[0])
    assert "| vector | norm |" in tables(found, "a run")
    for generator in ("none", "average"):
        refused = ["model: LatePromptTuning has no prompt for PEFT; PTuningV2, PromptTuning and PTuning do."]
        assert gaps(build("gpt2", generator=generator), head=False) == refused
