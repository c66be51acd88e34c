"""Direct use of a language model: what it answers is what transformers' model answers; calibration is Zhao et al.'s."""

import pytest
import runs
import torch
from sklearn.metrics import accuracy_score
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from ptune.data.choice import MultipleChoice
from ptune.data.classification import Classification
from ptune.data.templated import CONTENT_FREE
from ptune.errors import InputError
from ptune.methods.manual import ManualPrompt
from ptune.tasks import TaskSpec, toy

WORDS = {"no": "judge", "yes": "baker"}
TEMPLATE = "{sentence1} who? {sentence2} [MASK]"
BACKBONES = {"masked": lambda: runs.bert(lm=True), "causal": runs.gpt2}
each_kind = pytest.mark.parametrize("kind", BACKBONES)


def asked(kind, template=TEMPLATE, **options) -> Classification:
    """Toy pairs in a template, read."""
    data = Classification(
        "toy/pair", BACKBONES[kind](), path=runs.data(), template=template, verbalizer=WORDS, **options
    )
    data.setup("validate")
    return data


def built(data, **arguments) -> ManualPrompt:
    """A model for the data, its weights loaded."""
    model = ManualPrompt(data.backbone, data.head, **arguments)
    model.configure_model()
    return model.eval()


class Whole:
    """Transformers' own model, asked for the two words behind a text."""

    def __init__(self, kind: str, data: Classification) -> None:
        auto = AutoModelForCausalLM if kind == "causal" else AutoModelForMaskedLM
        self.model, self.tokenizer = auto.from_pretrained(data.backbone).eval(), data.tokenizer
        self.causal = kind == "causal"
        self.words = [self.tokenizer(f"a {word}", add_special_tokens=False)["input_ids"][-1] for word in WORDS.values()]

    @torch.no_grad()
    def logits(self, text: str) -> torch.Tensor:
        """Of the two words, behind this text."""
        if self.causal:
            return self.model(**self.tokenizer(text, return_tensors="pt")).logits[0, -1, self.words]
        inputs = self.tokenizer(f"{text} [MASK]", return_tensors="pt")
        return self.model(**inputs).logits[0, inputs["input_ids"][0] == self.tokenizer.mask_token_id][-1, self.words]

    def row(self, sentence1: str, sentence2: str) -> torch.Tensor:
        """The template without the writer."""
        return self.logits(f"{sentence1} who? {sentence2}".rstrip())


def evaluated(model, data, trainer) -> dict[str, float]:
    """What `Trainer.validate` finds on the validation rows."""
    return trainer().validate(model, data, verbose=False)[0]


@each_kind
def test_zero_shot_metrics_are_the_whole_models_put_together_by_hand(kind, trainer):
    data = asked(kind)
    found, whole = evaluated(built(data), data, trainer), Whole(kind, data)
    rows = toy.generate("toy/pair", "validation")[:7]
    logits = torch.stack([whole.row(row["sentence1"], row["sentence2"]) for row in rows])
    labels = torch.tensor([data.code(row["label"]) for row in rows])
    assert found["val/accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert found["val/loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
    assert list(built(data).trained()) == []


@each_kind
def test_calibration_is_w_p_with_the_inverse_of_what_no_content_gives(kind, trainer):
    """Zhao et al. 2021, section 5: q = softmax(W p + b), W = diag(p_cf)^-1, b = 0; p_cf the mean of three inputs'."""
    data = asked(kind)
    model, whole = built(data, calibrate=True), Whole(kind, data)
    mask = "[MASK]" if kind == "causal" else data.tokenizer.mask_token
    fillings = ("N/A", mask, "")
    assert CONTENT_FREE == ("N/A", "[MASK]", "")
    prior = torch.stack([whole.row(text, text).softmax(0) for text in fillings]).mean(0)
    rows = toy.generate("toy/pair", "validation")[:7]
    p = torch.stack([whole.row(row["sentence1"], row["sentence2"]).softmax(0) for row in rows])
    by_hand = p @ torch.diag(prior).inverse().T
    found = evaluated(model, data, trainer)
    assert_close(model.prior.exp(), prior)
    batch = data.collate(data.encode([data.parse(row) for row in rows], train=False))
    with torch.no_grad():
        scores = model.eval()(batch)
    assert_close(scores.exp(), by_hand, rtol=1e-4, atol=1e-5)
    labels = [data.code(row["label"]) for row in rows]
    assert found["val/accuracy"] == pytest.approx(accuracy_score(labels, by_hand.argmax(1)))
    if kind == "masked":  # where it does, it is worth its name
        assert not torch.equal(by_hand.argmax(1), p.argmax(1))


def test_a_prior_is_of_the_data_it_meets_and_moves_with_the_model():
    data = asked("masked")
    model = built(data, calibrate=True)
    assert model.prior is None
    model.check_data(data)
    first = model.prior
    model.check_data(data)
    assert torch.equal(model.prior, first), "calibrating twice is calibrating once"
    model.check_data(asked("masked", "{sentence2} [MASK]"))
    assert not torch.equal(model.prior, first)
    assert model.to("meta").prior.device.type == "meta"


def test_an_uncalibrated_model_has_no_prior():
    data = asked("masked")
    model = built(data)
    model.check_data(data)
    assert model.prior is None


def test_demonstrations_are_what_the_model_reads_before_the_row(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    data = asked("masked", "{sentence2} [MASK]", demonstrations=2, max_length=64)
    whole, row = Whole("masked", data), toy.generate("toy/pair", "validation")[0]
    front = data.tokenizer.decode(data.writer.front)
    assert sum(front.count(word) for word in WORDS.values()) >= 2
    with torch.no_grad():
        scores = built(data)(data.collate(data.encode([data.parse(row)], train=False)))
    assert_close(scores[0], whole.logits(f"{front} {row['sentence2']}"), rtol=1e-4, atol=1e-4)


def test_without_a_template_there_is_nothing_to_read():
    with pytest.raises(InputError, match=r"ManualPrompt reads a template: add --data.template task"):
        ManualPrompt(runs.bert(lm=True), Classification("toy/pair", runs.bert()).head)


def test_only_words_of_labels_are_calibrated():
    choice = TaskSpec("own", "multiple_choice", text=("a",), label="y", choices=("c0", "c1"))
    data = MultipleChoice(choice, runs.bert(lm=True), template="{a} [MASK]")
    with pytest.raises(InputError, match=r"--model.calibrate true: only words that stand for labels have a prior"):
        ManualPrompt(data.backbone, data.head, calibrate=True)


def test_zero_shot_on_a_real_model_finds_the_right_one_of_two_words():
    """A sanity check of the whole path on real weights, not a figure."""
    folder = runs.REPOSITORY.parent / "shared" / "models" / "minilm-l6-mlm"
    if not folder.is_dir():
        pytest.skip(f"no real masked language model: no {folder}")
    capitals = {"London": "england", "Paris": "france", "Berlin": "germany"}
    own = TaskSpec("own", text=("a",), label="y", labels=tuple(capitals.values()))
    data = Classification(
        own, str(folder), template="{a} is the capital of [MASK].", verbalizer={word: word for word in own.labels}
    )
    batch = data.collate(data.encode([data.parse({"a": a, "y": y}) for a, y in capitals.items()], train=False))
    with torch.no_grad():
        assert built(data)(batch).argmax(1).tolist() == [0, 1, 2]
