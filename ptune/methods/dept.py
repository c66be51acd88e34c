"""DePT, decomposed prompt tuning (Shi & Lipani 2024, arXiv:2309.05173): a shorter soft prompt, and a low-rank change of
the frozen word embeddings in place of the vectors that were left out.

The input is [P; E + A B]: m trained vectors P before the text, and to the word embedding of the text's token i row i of
A B is added, where A is "s r" and B "r e" for texts of at most s tokens. The starts are those of
ZhengxiangShi/DePT ce8574a: peft/tuners/prompt_tuning_lora.py: A drawn, B zero, so that training starts from prompt
tuning. Deviations: their code multiplies A B by 8 / sqrt(r), which the paper's equations do not have, and which a rate
of the pair makes up for; vectors start from common words, as those of `PromptTuning`; the slots stand behind [CLS],
which is token 0 of the text.
"""

import math
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.heads import Batch
from ptune.methods.prompt_tuning import common_words
from ptune.prompts import Prompts
from ptune.tuning.checks import check_rate, check_size
from ptune.tuning.companions import Accompanied
from ptune.tuning.recipe import is_own

PAIR = ("prompt.a", "prompt.b")
"""Names of the low-rank pair."""


@final
class DecomposedPrompt(nn.Module):
    """p vectors of width e, and the pair a "s r" and b "r e" whose product is added to the text's word embeddings."""

    def __init__(self, length: int, width: int, tokens: int, rank: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(length, width))  # set from words when the backbone is loaded
        self.a = nn.Parameter(torch.empty(tokens, rank))
        self.b = nn.Parameter(torch.zeros(rank, width))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def added(self, text: Bool[Tensor, "b t"]) -> Float[Tensor, "b t e"]:
        """What is added to each token: row i of a b to the token i of the text, nothing to slots and padding."""
        s = len(self.a)
        row = text.cumsum(1) - 1
        row = row.where(text & (row < s), s)  # the row behind the last is zero
        return F.embedding(row, F.pad(self.a @ self.b, (0, 0, 0, 1)))


@final
class DePT(Accompanied):
    """Train vectors in the input's prompt slots, a low-rank pair that changes the word embeddings, and the head.

    The paper shortens a prompt of l vectors to `length` and chooses the rank so that as many numbers are trained as
    before: (l - length) e = (tokens + e) rank.

    Args:
        length: Prompt length p, slots of the input.
        rank: Rank r of the pair; 45 in the authors' script, with a length of 40 in place of 100 and e = 768.
        tokens: Number s of tokens of the text, special ones counted and slots not, whose embeddings have a change of
            their own; as many as the data's texts may have.
        pair_lr: Peak learning rate of the pair, which the paper has below that of the vectors.
    """

    prompt: DecomposedPrompt
    stored_arguments = ("length", "tokens", "rank")
    slot_argument = "length"

    def __init__(self, length: int = 10, rank: int = 8, tokens: int = 256, pair_lr: float = 1e-3, **common) -> None:
        super().__init__(**common)
        for name, value in {"length": length, "rank": rank, "tokens": tokens}.items():
            check_size(name, value)
        check_rate("pair_lr", pair_lr)
        self.prompt = DecomposedPrompt(length, self.spec.embedding_width, tokens, rank)

    @torch.no_grad()
    def prepare(self, backbone: Backbone) -> None:
        """Start the vectors from embeddings of common words."""
        super().prepare(backbone)
        self.prompt.vectors.copy_(common_words(backbone, self.hparams["length"]))

    def check_data(self, data: Any) -> None:
        """As for all methods; texts may not have more tokens than the pair has rows."""
        super().check_data(data)
        s = self.hparams["tokens"]
        if is_own(data) and data.max_length - self.slots > s:
            raise InputError(
                f"tokens: {s}, but data.max_length: {data.max_length} leaves {data.max_length - self.slots} tokens for "
                f"the text beside {self.slots} slots; use --model.tokens {data.max_length - self.slots} or more, or "
                f"--data.max_length {s + self.slots} or less."
            )

    def prompts(self, batch: Batch) -> Prompts:
        """The vectors, for the slots of every text, and what is added to its word embeddings."""
        text = batch["attention_mask"].bool() & ~batch["slots"]
        return Prompts(embeds=self.prompt.vectors[None], added=self.prompt.added(text))

    def groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """As for all methods; the pair is a group."""
        groups = super().groups()
        groups["pair"] = {name: groups["prompt"].pop(name) for name in PAIR}
        return groups

    @property
    def rates(self) -> dict[str, float]:
        """Peak learning rates; the pair has its own."""
        return super().rates | {"pair": self.hparams["pair_lr"]}
