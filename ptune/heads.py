"""Task heads, the same for every backbone: one linear layer, or the backbone's own language model at a template's mask.

A head's `loss` returns a sum and the number of terms in it, not a mean: only so can processes that hold different
numbers of tokens agree on the mean over the global batch.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.data.tokenizer import load, whole_words
from ptune.pretrained import BackboneSpec
from ptune.tasks.spec import HeadSpec
from ptune.templates import answers

Batch = dict[str, Tensor]
Loss = tuple[Float[Tensor, ""], Int[Tensor, ""]]


class Head(nn.Module):
    """Scores of a task from a backbone's last hidden states, and their loss."""

    pools: ClassVar[bool] = True
    """Whether it reads one vector a text, not every token."""
    lm: ClassVar[bool] = False
    """Whether it reads with the backbone's language-model head."""

    @abstractmethod
    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Tensor:
        """Scores of a batch from the backbone's last hidden states."""

    @abstractmethod
    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Summed loss against `batch["labels"]` and the number of terms summed."""


class LinearHead(Head):
    """Dropout and one linear layer from width d to `outputs`, initialised N(0, 0.02²) with zero bias as BERT's.

    Where the softmax is over endings or tokens, not outputs, a bias would change nothing and never move: there is none.
    """

    def __init__(self, width: int, outputs: int, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, outputs, bias)
        nn.init.normal_(self.linear.weight, std=0.02)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def project(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "... o"]:
        """The linear layer after dropout."""
        return self.linear(self.dropout(hidden))


def _cross_entropy(scores: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Loss:
    total = F.cross_entropy(scores.float(), labels, ignore_index=-100, reduction="sum")
    return total, (labels != -100).sum()


class Classify(LinearHead):
    """One of c classes for a text or a pair: scores "b c"."""

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """Class scores of the pooled text."""
        return self.project(backbone.pool(hidden, batch))

    def loss(self, scores: Float[Tensor, "b c"], batch: Batch) -> Loss:
        """Cross entropy; labels "b"."""
        return _cross_entropy(scores, batch["labels"])


class Regress(LinearHead):
    """A number for a text or a pair: scores "b", in the label's own unit."""

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, " b"]:
        """The number read from the pooled text."""
        return self.project(backbone.pool(hidden, batch)).squeeze(-1)

    def loss(self, scores: Float[Tensor, " b"], batch: Batch) -> Loss:
        """Squared error; labels "b"."""
        labels = batch["labels"]
        return F.mse_loss(scores.float(), labels.float(), reduction="sum"), torch.tensor(
            len(labels), device=labels.device
        )


class Choice(LinearHead):
    """One of c endings, each read as a text of its own (n = b c): scores "b c"."""

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """One score an ending."""
        return self.project(backbone.pool(hidden, batch)).view(len(batch["labels"]), -1)

    def loss(self, scores: Float[Tensor, "b c"], batch: Batch) -> Loss:
        """Cross entropy over the endings; labels "b"."""
        return _cross_entropy(scores, batch["labels"])


class Span(LinearHead):
    """Start and end of the answer in the text: scores "n t 2"; padding cannot be an answer."""

    pools = False

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "n t 2"]:
        """Start (0) and end (1) scores of every token."""
        scores = self.project(hidden)
        return scores.masked_fill(~batch["attention_mask"].bool()[..., None], torch.finfo(scores.dtype).min)

    def loss(self, scores: Float[Tensor, "n t 2"], batch: Batch) -> Loss:
        """Mean of the cross entropies of start and end; labels "n 2"."""
        total, terms = _cross_entropy(scores.transpose(1, 2).flatten(0, 1), batch["labels"].flatten())
        return total / 2, terms // 2


class Tag(LinearHead):
    """One of c tags a token: scores "b t c"; tokens labelled -100 do not count."""

    pools = False

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b t c"]:
        """Tag scores of every token."""
        return self.project(hidden)

    def loss(self, scores: Float[Tensor, "b t c"], batch: Batch) -> Loss:
        """Cross entropy over labelled tokens; labels "b t"."""
        return _cross_entropy(scores.flatten(0, 1), batch["labels"].flatten())


class Cloze(Head):
    """One of c classes by the words that stand for it at the template's mask: scores "b c"; nothing of it is trained.

    Where all words are read from one input, a word's score is its logit, the mean over its tokens; where they differ in
    length, the mean of the logarithms of its tokens' probabilities, which need the whole vocabulary. A label's score is
    the mean over its words (P-Tuning v1 f4225d4, PT-Fewshot/pet/tasks.py; Schick & Schütze 2021 for longer words).

    Args:
        words: the words of each label.
        backbone: whose tokens they are.
    """

    pools = False
    lm = True
    tokens: Tensor
    input: Tensor
    place: Tensor
    token: Tensor
    of_word: Tensor
    of_label: Tensor

    def __init__(self, words: Sequence[Sequence[str]], backbone: BackboneSpec) -> None:
        super().__init__()
        found = answers(words, load(backbone.name), backbone.lm == "causal")
        self.inputs = len(found.fills)
        longest = max(map(len, found.tokens))
        tokens = sorted({token for word in found.tokens for token in word})
        at = torch.tensor([[tokens.index(t) for t in word] + [0] * (longest - len(word)) for word in found.tokens])
        used = torch.tensor([[j < len(word) for j in range(longest)] for word in found.tokens])
        of_label = torch.zeros(len(found.tokens), len(words))
        of_label[torch.arange(len(found.labels)), torch.tensor(found.labels)] = 1
        constants = {
            "tokens": torch.tensor(tokens),
            "input": torch.tensor(found.inputs)[:, None].expand(-1, longest),
            "place": torch.arange(longest).expand(len(at), -1),
            "token": at,
            "of_word": used / used.sum(1, keepdim=True),
            "of_label": of_label / of_label.sum(0),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """Class scores from the n = b inputs · b texts."""
        vectors = _at(hidden, batch["answer_at"])
        if self.inputs == 1:
            scores = backbone.lm_scores(vectors, self.tokens)
        else:
            scores = backbone.lm_scores(vectors).float().log_softmax(-1)[..., self.tokens]
        scores = scores.float().unflatten(0, (-1, self.inputs))
        words = (scores[:, self.input, self.place, self.token] * self.of_word).sum(-1)
        return words @ self.of_label

    def loss(self, scores: Float[Tensor, "b c"], batch: Batch) -> Loss:
        """Cross entropy over the classes; labels "b"."""
        return _cross_entropy(scores, batch["labels"])


class ClozeChoice(Head):
    """One of c answers, each read at the mask of an input of its own (n = b c): scores "b c".

    An answer's score is the mean of the logarithms of its tokens' probabilities, so that long ones are not worse off.
    """

    pools = False
    lm = True

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """One score an answer."""
        ids: Int[Tensor, "n a"] = batch["answer_ids"]
        scores = backbone.lm_scores(_at(hidden, batch["answer_at"])).float().log_softmax(-1)
        used = ids != -100
        scores = scores.gather(-1, ids.clamp(min=0)[..., None]).squeeze(-1).masked_fill(~used, 0)
        return (scores.sum(1) / used.sum(1)).view(len(batch["labels"]), -1)

    def loss(self, scores: Float[Tensor, "b c"], batch: Batch) -> Loss:
        """Cross entropy over the answers; labels "b"."""
        return _cross_entropy(scores, batch["labels"])


class Fill(Head):
    """Any word of the vocabulary at the template's mask: scores "b v", -inf for tokens that are no whole words.

    The softmax of the loss is over these words; P-Tuning v1's (f4225d4, LAMA/p_tuning) is over all tokens, of which it
    too allows only words as answers.
    """

    pools = False
    lm = True
    words: Tensor

    def __init__(self, backbone: BackboneSpec) -> None:
        super().__init__()
        words = torch.zeros(backbone.config.get_text_config().vocab_size, dtype=torch.bool)
        words[whole_words(backbone.name)] = True
        self.register_buffer("words", words, persistent=False)

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b v"]:
        """Scores of all words."""
        scores = backbone.lm_scores(_at(hidden, batch["answer_at"])[:, 0]).float()
        return scores.masked_fill(~self.words, -torch.inf)

    def loss(self, scores: Float[Tensor, "b v"], batch: Batch) -> Loss:
        """Cross entropy over the words; labels "b" are token ids."""
        return _cross_entropy(scores, batch["labels"])


def _at(hidden: Float[Tensor, "n t d"], places: Int[Tensor, "n a"]) -> Float[Tensor, "n a d"]:
    return hidden[torch.arange(len(hidden), device=hidden.device)[:, None], places]


def head_for(spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool = True) -> Head:
    """The head a task asks for; `bias` where it makes a difference.

    Raises:
        InputError: the tokenizer cannot spell a word of a cloze.
    """
    width = backbone.width
    match spec.kind:
        case "classify":
            return Classify(width, len(spec.labels), dropout, bias)
        case "regress":
            return Regress(width, 1, dropout, bias)
        case "choice":
            return Choice(width, 1, dropout, bias=False)
        case "span":
            return Span(width, 2, dropout, bias=False)
        case "tag":
            return Tag(width, len(spec.labels), dropout, bias)
        case "cloze":
            return Cloze(spec.words, backbone)
        case "cloze_choice":
            return ClozeChoice()
        case "fill":
            return Fill(backbone)
