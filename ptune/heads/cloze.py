"""Heads that read the scores of the backbone's own language model at the mask of a template."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ptune.backbone import Backbone
from ptune.backbone.pretrained import BackboneSpec
from ptune.backbone.tokenizer import answers, load, whole_words
from ptune.heads.base import Batch, Head
from ptune.heads.metrics import OF_CLASSES, accuracy
from ptune.heads.one_of import OneOf
from ptune.tasks.spec import HeadSpec


@final
class Cloze(OneOf):
    """One of c classes by the verbalizer's words at the template's mask: scores "b c"; the head has no parameters.

    Where one input is enough to read all words, a word's score is the mean logit of its tokens; otherwise it is their
    mean log-probability, which needs the whole vocabulary. A label's score is the mean over its words (P-Tuning v1
    f4225d4, PT-Fewshot/pet/tasks.py; Schick & Schütze 2021 for longer words).

    Args:
        words: the words of each label.
        backbone: its tokenizer spells the words.
    """

    kind = "cloze"
    pools = False
    lm = True
    metrics = OF_CLASSES
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

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """The words of the task's verbalizer."""
        return cls(spec.words, backbone)

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


@final
class ClozeChoice(OneOf):
    """One of c answers, each read at the mask of an input of its own (n = b c): scores "b c".

    An answer's score is the mean log-probability of its tokens, so that long answers are not penalised.
    """

    kind = "cloze_choice"
    pools = False
    lm = True
    metrics = {"accuracy": accuracy}  # noqa: RUF012

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """The answers come with the batch."""
        return cls()

    def forward(self, hidden: Float[Tensor, "n t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b c"]:
        """One score an answer."""
        ids: Int[Tensor, "n a"] = batch["answer_ids"]
        scores = backbone.lm_scores(_at(hidden, batch["answer_at"])).float().log_softmax(-1)
        used = ids != -100
        scores = scores.gather(-1, ids.clamp(min=0)[..., None]).squeeze(-1).masked_fill(~used, 0)
        return (scores.sum(1) / used.sum(1)).view(len(batch["labels"]), -1)


@final
class AnyWord(OneOf):
    """Any word of the vocabulary at the template's mask: scores "b v", -inf for tokens that are no whole words.

    The softmax of the loss is over these words. That of P-Tuning v1 (f4225d4, LAMA/p_tuning) is over all tokens, but
    its answers are whole words, too. Labels are token ids.
    """

    kind = "fill"
    pools = False
    lm = True
    metrics = {"precision_at_1": accuracy}  # noqa: RUF012
    words: Tensor

    def __init__(self, backbone: BackboneSpec) -> None:
        super().__init__()
        words = torch.zeros(backbone.config.get_text_config().vocab_size, dtype=torch.bool)
        words[whole_words(backbone.name)] = True
        self.register_buffer("words", words, persistent=False)

    @classmethod
    def build(cls, spec: HeadSpec, backbone: BackboneSpec, dropout: float, bias: bool) -> Head:
        """All whole words of the backbone's vocabulary."""
        return cls(backbone)

    def forward(self, hidden: Float[Tensor, "b t d"], batch: Batch, backbone: Backbone) -> Float[Tensor, "b v"]:
        """Scores of all words."""
        scores = backbone.lm_scores(_at(hidden, batch["answer_at"])[:, 0]).float()
        return scores.masked_fill(~self.words, -torch.inf)


def _at(hidden: Float[Tensor, "n t d"], places: Int[Tensor, "n a"]) -> Float[Tensor, "n a d"]:
    return hidden[torch.arange(len(hidden), device=hidden.device)[:, None], places]
