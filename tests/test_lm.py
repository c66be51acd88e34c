"""A language model's own head, at chosen positions and words, is transformers' whole forward pass there."""

import pytest
import torch
import transformers
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import XLNetLMHeadModel

from ptune.backbone import Backbone, traits
from ptune.errors import InputError
from ptune.prompts import Prompts

MASKED = (
    "bert",
    "roberta",
    "camembert",
    "xlm-roberta",
    "ernie",
    "electra",
    "albert",
    "distilbert",
    "mpnet",
    "deberta",
    "deberta-v2",
    "modernbert",
    "esm",
)
CAUSAL = (
    "gpt2",
    "gpt_neox",
    "opt",
    "llama",
    "mistral",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "bloom",
    "mixtral",
)
PLACES, WORDS = torch.tensor([[2, 0], [1, 4], [2, 2]]), torch.tensor([7, 50, 3])

each_family = pytest.mark.parametrize("family", MASKED + CAUSAL)


def whole(family: str, folder: str) -> torch.nn.Module:
    """Transformers' own class with the head on it."""
    auto = transformers.AutoModelForMaskedLM if family in MASKED else transformers.AutoModelForCausalLM
    return auto.from_pretrained(folder, attn_implementation="eager").eval()


def chosen(values: torch.Tensor) -> torch.Tensor:
    """The vectors "b t x" at PLACES: "b a x"."""
    return values[torch.arange(len(values))[:, None], PLACES]


@each_family
def test_scores_at_chosen_places_and_words_are_the_whole_models_there(tiny, batch, family):
    folder, inputs = tiny(family, lm=True), batch()
    backbone = Backbone(folder, lm=True).eval()
    assert backbone.spec.lm == ("masked" if family in MASKED else "causal")
    with torch.no_grad():
        expected = chosen(whole(family, folder)(**inputs).logits)
        hidden = chosen(backbone(inputs))
        every, few = backbone.lm_scores(hidden), backbone.lm_scores(hidden, WORDS)
    assert expected.std() > 0.1
    assert_close(every, expected, atol=1e-5, rtol=1e-4)
    assert few.shape == (3, 2, 3)
    assert_close(few, expected[..., WORDS], atol=1e-5, rtol=1e-4)


@each_family
def test_gradients_to_the_hidden_states_do_not_depend_on_how_many_words_are_scored(tiny, batch, family):
    backbone = Backbone(tiny(family, lm=True), lm=True).eval()
    weights = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0))
    gradients = []
    for few in (True, False):
        hidden = chosen(backbone(batch()).detach()).requires_grad_()
        scores = backbone.lm_scores(hidden, WORDS) if few else backbone.lm_scores(hidden)[..., WORDS]
        (scores * weights).sum().backward()
        gradients.append(hidden.grad)
    assert gradients[0].abs().max() > 1e-3
    assert_close(*gradients, atol=1e-6, rtol=1e-4)


@each_family
def test_gradients_reach_the_word_embeddings_as_in_the_whole_model(tiny, batch, family):
    """The head and the body of a loaded model are the whole: tied weights get the sum of both their gradients."""
    folder, inputs = tiny(family, lm=True), batch()
    model, backbone = whole(family, folder), Backbone(folder, lm=True).eval()
    labels = torch.tensor([[7, 9], [50, 8], [3, 3]])
    losses = []
    for scores in (chosen(model(**inputs).logits), backbone.lm_scores(chosen(backbone(inputs)))):
        losses.append(F.cross_entropy(scores.flatten(0, 1), labels.flatten()))
        losses[-1].backward()
    assert_close(*losses)
    one, other = (m.get_input_embeddings().weight.grad for m in (model, backbone.model))
    assert one.abs().max() > 1e-4
    assert_close(other, one, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("family", [family for family in MASKED + CAUSAL if family != "bloom"])  # take none
def test_the_loss_of_the_head_moves_a_prefix_and_the_prefix_the_scores(tiny, batch, prefix, family):
    backbone = Backbone(tiny(family, lm=True), lm=True).eval()
    backbone.requires_grad_(False)
    keys_values = prefix(backbone.spec).requires_grad_()
    with torch.no_grad():
        without = backbone.lm_scores(chosen(backbone(batch())), WORDS)
    scores = backbone.lm_scores(chosen(backbone(batch(), Prompts(prefix=keys_values))), WORDS)
    assert (scores - without).abs().max() > 1e-3
    F.cross_entropy(scores.flatten(0, 1), torch.zeros(6, dtype=torch.long)).backward()
    assert (keys_values.grad.abs().amax(dim=(1, 2, 3, 4, 5)) > 0).all(), "every layer's"


def test_an_unprompted_backbone_keeps_no_head_unless_asked(tiny):
    plain, full = Backbone(tiny("bert", lm=True)), Backbone(tiny("bert", lm=True), lm=True)
    assert plain.lm is None
    assert plain.fingerprint == full.fingerprint
    assert {name for name, _ in plain.named_parameters()} <= {name for name, _ in full.named_parameters()}


@pytest.mark.parametrize(
    ("family", "lm", "reason"),
    [
        ("t5", False, "'t5'.*has no language model of its own.*leave the template out"),
        ("bart", False, "'bart'.*has no language model of its own.*leave the template out"),
        ("bert", False, "no trained language-model head.*'cls.predictions"),
        ("roberta", False, "no trained language-model head.*'lm_head"),
        ("albert", False, "no trained language-model head.*'predictions"),
        ("modernbert", False, "no trained language-model head.*'(head|decoder)"),
    ],
)
def test_a_checkpoint_that_cannot_say_words_is_refused_in_a_sentence(tiny, family, lm, reason):
    folder = tiny(family, lm=lm)
    with pytest.raises(InputError, match=reason) as refusal:
        Backbone(folder, lm=True)
    assert "\n" not in str(refusal.value)
    Backbone(folder)  # the body alone is a backbone


def test_a_language_model_of_another_order_is_refused(tiny, monkeypatch):
    folder = tiny("gpt2", lm=True)
    monkeypatch.setattr(traits, "_MEASURED", {})
    monkeypatch.setattr(traits.Traits, "_causal", lambda self, states: False)
    with pytest.raises(InputError, match=r"'gpt2'.*in an order of its own.*another backbone"):
        Backbone(folder, lm=True)


def test_xlnets_answer_is_read_by_its_query_stream(tiny):
    """As its permutation language model reads it: places are asked for, and nobody sees the tokens that stand there."""
    folder = tiny("xlnet", lm=True)
    backbone = Backbone(folder, lm=True).eval()
    ids, at = torch.tensor([[5, 9, 8, 30, 27, 7], [6, 8, 7, 1, 1, 1]]), torch.tensor([[2, 3], [1, 1]])
    batch = {"input_ids": ids, "attention_mask": (ids != 1).long(), "answer_at": at}
    targets = F.one_hot(at, 6).float()
    unseen = targets.amax(1, keepdim=True).expand(-1, 6, -1)
    model = XLNetLMHeadModel.from_pretrained(folder).eval()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    asked = (targets[:, i : i + 1] for i in (0, 1))  # one place at a time: two queries at one place are added up there
    expected = torch.cat([model(**inputs, perm_mask=unseen, target_mapping=one).logits for one in asked], dim=1)
    hidden = backbone(batch)
    assert_close(backbone.lm_scores(hidden[torch.arange(2)[:, None], at]), expected)
    other = batch | {"input_ids": ids.clone().index_put((torch.tensor([0]), torch.tensor([2])), torch.tensor(40))}
    assert torch.equal(backbone(other), hidden)


def test_a_place_that_is_asked_for_twice_is_read_and_learned_from_as_if_once(tiny, prefix):
    """A shorter answer repeats its last place where another one is longer."""
    backbone = Backbone(tiny("xlnet", lm=True), lm=True).eval().requires_grad_(False)
    ids, found = torch.tensor([[5, 9, 8, 30]]), []
    for places in ([2], [2, 2]):
        kv = prefix(backbone.spec).requires_grad_()
        hidden = backbone({"input_ids": ids, "answer_at": torch.tensor([places])}, Prompts(prefix=kv))
        hidden[:, 2].pow(2).sum().backward()
        found.append((hidden.detach(), kv.grad))
    for once, twice in zip(*found, strict=True):
        assert_close(twice, once)


def test_a_prefix_reaches_xlnets_query_stream_in_every_layer(tiny, prefix):
    backbone = Backbone(tiny("xlnet", lm=True), lm=True).eval()
    keys_values = prefix(backbone.spec).requires_grad_()
    batch = {"input_ids": torch.tensor([[5, 9, 8, 30]]), "answer_at": torch.tensor([[2]])}
    backbone.lm_scores(backbone(batch, Prompts(prefix=keys_values))[:, 2], WORDS).sum().backward()
    assert (keys_values.grad.abs().amax(dim=(1, 2, 3, 4, 5)) > 0).all()
