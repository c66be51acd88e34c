"""Heads that read a template against transformers' whole language models, their scores put together by hand."""

import pytest
import runs
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from ptune.backbone.pretrained import describe
from ptune.backbone.tokenizer import whole_words
from ptune.data.choice import MultipleChoice
from ptune.data.classification import Classification
from ptune.data.fill import Fill
from ptune.heads.cloze import AnyWord, Cloze, ClozeChoice
from ptune.methods.manual import ManualPrompt
from ptune.tasks import TaskSpec

TEXTS = ("the nurse thanked the pilot", "who", "the pilot was helped")
LABELS = ("no", "yes", "maybe")
CHOICE = TaskSpec("own", "multiple_choice", text=("a",), label="y", choices=("c0", "c1"), labels=("0", "1"))
FACT = TaskSpec("own", "fill", text=("a",), label="o", metrics=("precision_at_1",))
MODELS = runs.REPOSITORY.parent / "shared" / "models"


def real(name: str) -> str:
    """The folder of a real language model, if it is there."""
    if not (MODELS / name).is_dir():
        pytest.skip(f"no real language model: no {MODELS / name}")
    return str(MODELS / name)


BACKBONES = {
    "masked": lambda: runs.bert(lm=True),
    "causal": runs.gpt2,
    "real masked": lambda: real("minilm-l6-mlm"),
    "real causal": lambda: real("stories260K"),
}
each_backbone = pytest.mark.parametrize("kind", BACKBONES)


class Case:
    """A method that trains nothing on a data module's batch, and transformers' model beside it."""

    def __init__(
        self, kind: str, module: type, task: TaskSpec, rows: list[dict], template: str = "{a} was [MASK]", **options
    ) -> None:
        folder = BACKBONES[kind]()
        self.causal = "causal" in kind
        self.data = module(task, folder, template=template, **options)
        self.tokenizer = self.data.tokenizer
        self.batch = self.data.collate(self.data.encode([self.data.parse(row) for row in rows], train=True))
        self.model = ManualPrompt(folder, self.data.head).eval()
        self.model.configure_model()
        auto = AutoModelForCausalLM if self.causal else AutoModelForMaskedLM
        self.whole = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    @torch.no_grad()
    def scores(self) -> torch.Tensor:
        """What the head says."""
        return self.model(self.batch)

    @torch.no_grad()
    def read(self, text: str, word: str) -> tuple[torch.Tensor, list[int]]:
        """Logits "a v" where each token of the word is read, and the tokens, from the text alone, not padded."""
        before = self.tokenizer(text)["input_ids"]
        whole = self.tokenizer(f"{text} {word}")["input_ids"]
        if self.causal:
            logits = self.whole(torch.tensor([whole])).logits[0]
            return logits[len(before) - 1 : -1], whole[len(before) :]
        answer = whole[len(before) - 1 : -1]
        masks = [self.tokenizer.mask_token_id] * len(answer)
        logits = self.whole(torch.tensor([[*before[:-1], *masks, before[-1]]])).logits[0]
        return logits[len(before) - 1 : -1], answer


def logit(logits: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """Mean of the tokens' own logits."""
    return torch.stack([row[token] for row, token in zip(logits, tokens, strict=True)]).mean()


def log_probability(logits: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """Mean of the logarithms of the tokens' probabilities."""
    return logit(logits.log_softmax(-1), tokens)


def loss_is_torchs(case: Case, scores: torch.Tensor) -> None:
    """Sum over count is torch's mean cross entropy."""
    total, count = case.model.head.loss(scores, case.batch)
    labels = case.batch["labels"]
    assert count == len(labels)
    assert_close(total / count, F.cross_entropy(scores, labels))


WORDS = {
    "single": {
        "toy": {"no": "nurse", "yes": "baker", "maybe": "judge"},
        "real masked": {"no": "bad", "yes": "good", "maybe": "fine"},
        "real causal": {"no": "was", "yes": "and", "maybe": "the"},
    },
    "several": {
        "toy": {"no": ["nurse", "thanked"], "yes": ["baker"], "maybe": ["judge", "was", "by"]},
        "real masked": {"no": ["bad", "terrible"], "yes": ["good"], "maybe": ["fine", "average", "so"]},
        "real causal": {"no": ["was", "to"], "yes": ["and"], "maybe": ["the", "play", "her"]},
    },
    "long": {
        "toy": {"no": ["nurse", "the pilot"], "yes": ["the baker was"], "maybe": "judge"},
        "real masked": {"no": ["bad", "very bad"], "yes": ["very good indeed"], "maybe": "fine"},
        "real causal": {"no": ["was", "play the"], "yes": ["play the big"], "maybe": "her"},
    },
}


@each_backbone
@pytest.mark.parametrize("length", WORDS)
def test_a_labels_score_is_the_mean_over_its_words_in_the_whole_model(kind, length):
    words = WORDS[length].get(kind) or WORDS[length]["toy"]
    rows = [{"a": text, "y": label} for text, label in zip(TEXTS, ("yes", "no", "maybe"), strict=True)]
    case = Case(kind, Classification, TaskSpec("own", text=("a",), label="y", labels=LABELS), rows, verbalizer=words)
    head = case.model.head
    assert isinstance(head, Cloze)
    assert not list(head.parameters())
    assert head.inputs == {"single": 1, "several": 1, "long": 3}[length]
    form = log_probability if length == "long" else logit
    expected = torch.stack(
        [
            torch.stack(
                [
                    torch.stack([form(*case.read(f"{text} was", word)) for word in group]).mean()
                    for group in ([words[label]] if isinstance(words[label], str) else words[label] for label in LABELS)
                ]
            )
            for text in TEXTS
        ]
    )
    scores = case.scores()
    assert expected.std() > 0.01
    assert_close(scores, expected, atol=2e-5, rtol=1e-4)
    loss_is_torchs(case, scores)


@pytest.mark.parametrize("kind", ["masked", "real masked"])
def test_words_of_equal_length_over_one_need_one_input_and_are_the_mean_of_their_logits(kind):
    words = {"no": "the nurse", "yes": "the pilot", "maybe": ["was by", "and by"]}
    task = TaskSpec("own", text=("a",), label="y", labels=LABELS)
    case = Case(kind, Classification, task, [{"a": TEXTS[0], "y": 0}], verbalizer=words)
    assert case.model.head.inputs == 1
    one = [logit(*case.read(f"{TEXTS[0]} was", word)) for word in ("the nurse", "the pilot", "was by", "and by")]
    expected = torch.stack([one[0], one[1], (one[2] + one[3]) / 2])
    assert_close(case.scores()[0], expected, atol=2e-5, rtol=1e-4)


@each_backbone
def test_an_endings_score_is_the_mean_log_probability_of_its_tokens(kind):
    endings = [("judge", "the nurse was"), ("the pilot", "by"), ("was the", "and the nurse thanked")]
    rows = [
        {"a": text, "c0": one, "c1": other, "y": i % 2}
        for i, (text, (one, other)) in enumerate(zip(TEXTS, endings, strict=True))
    ]
    case = Case(kind, MultipleChoice, CHOICE, rows)
    assert isinstance(case.model.head, ClozeChoice)
    expected = torch.stack(
        [
            torch.stack([log_probability(*case.read(f"{row['a']} was", row[name])) for name in ("c0", "c1")])
            for row in rows
        ]
    )
    assert expected.std() > 0.01
    scores = case.scores()
    assert_close(scores, expected, atol=2e-5, rtol=1e-4)
    loss_is_torchs(case, scores)


@each_backbone
def test_a_fact_is_filled_with_the_best_whole_word(kind):
    word = "the"
    case = Case(kind, Fill, FACT, [{"a": text, "o": word} for text in TEXTS])
    assert isinstance(case.model.head, AnyWord)
    scores, ids = case.scores(), whole_words(case.data.backbone)
    assert scores.shape == (3, describe(case.data.backbone).config.vocab_size)
    other = torch.ones(scores.shape[1], dtype=torch.bool)
    other[ids] = False
    assert other.any()
    assert (scores[:, other] == -torch.inf).all()
    expected = torch.stack([case.read(f"{text} was", word)[0][0] for text in TEXTS])
    assert_close(scores[:, ids], expected[:, ids], atol=2e-5, rtol=1e-4)
    loss_is_torchs(case, scores)
    (label,) = case.read("who was", word)[1]
    gold = torch.full((3,), label)
    place = {int(i): j for j, i in enumerate(ids)}
    by_words = F.cross_entropy(expected[:, ids], torch.full((3,), place[label]))
    assert_close(case.model.head.loss(scores, case.batch | {"labels": gold})[0] / 3, by_words)
    case.model.metrics.update(scores, case.batch)
    right = (expected[:, ids].argmax(1) == place[label]).double().mean().item()
    assert case.model.metrics.compute() == {"precision_at_1": pytest.approx(right)}


def test_the_real_masked_model_knows_what_it_was_trained_on():
    """Not a figure: that what it likes best is read at the mask and not beside it."""
    known = {"{a} is the capital of [MASK].": ("London", "britain"), "{a} was [MASK].": ("The movie", "good")}
    for template, (text, word) in known.items():
        case = Case("real masked", Fill, FACT, [{"a": text, "o": word}], template)
        best = case.scores()[0].topk(10).indices
        assert word in case.tokenizer.convert_ids_to_tokens(best.tolist())


def test_every_score_moves_the_hidden_states_that_it_is_read_from_and_no_others():
    words = WORDS["long"]["toy"]
    task = TaskSpec("own", text=("a",), label="y", labels=LABELS)
    case = Case("masked", Classification, task, [{"a": text, "y": 1} for text in TEXTS], verbalizer=words)
    hidden = case.model.backbone(case.batch).detach().requires_grad_()
    total, _ = case.model.head.loss(case.model.head(hidden, case.batch, case.model.backbone), case.batch)
    total.backward()
    read = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    read[torch.arange(len(read))[:, None], case.batch["answer_at"]] = True
    assert read.sum() == 3 * (1 + 2 + 3)
    assert torch.equal(hidden.grad.abs().sum(-1) > 0, read)
