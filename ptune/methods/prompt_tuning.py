"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691): p trained vectors before the text, after a special first token
where the tokenizer has one."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ptune.backbone import Backbone
from ptune.backbone.tokenizer import load, text_ids
from ptune.errors import InputError
from ptune.heads import Batch
from ptune.prompts import Prompts
from ptune.tuning.checks import check_size
from ptune.tuning.transfer import Transferable, check_init, source

COMMON = 5000
"""Lester et al. sample from the 5,000 most common words."""
STARTS = ("vocab", "labels", "random", "text")
"""What `init` may be, beside the run of a trained prompt."""


@final
class SoftPrompt(nn.Module):
    """p trained vectors in the width e of the word embeddings, "p e"."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.vectors, std=0.02)

    def forward(self) -> Float[Tensor, "one p e"]:
        """The vectors; the batch axis is 1."""
        return self.vectors[None]


def soft_prompt(vectors: Float[Tensor, "p e"]) -> SoftPrompt:
    """The soft prompt that trains these vectors."""
    with torch.device("meta"):  # nothing is initialised, so that no random numbers are drawn
        prompt = SoftPrompt(*vectors.shape)
    prompt.vectors = nn.Parameter(vectors)
    return prompt


@final
class PromptTuning(Transferable):
    """Train vectors in the input's prompt slots, and the head.

    Args:
        length: Prompt length p, slots of the input.
        init: `vocab` embeddings of p of the 5,000 most common tokens, drawn by seed, as Lester et al. found best for
            models of this size; `labels` one vector for each label name of the task, the mean of its tokens'
            embeddings, and `vocab` for the rest, as in their section 3.2; `random` N(0, 0.02²); `text` embeddings of
            the tokens of `init_text`; `run:DIR` the trained vectors of a run of PromptTuning or PTuning with the same
            length and backbone (SPoT, Vu et al. 2022), `run+head:DIR` its head, too, where labels and reading are the
            same.
        init_text: Text of `init: text`, repeated or cut to `length` tokens.
    """

    prompt: SoftPrompt
    stored_arguments = ("length",)
    slot_argument = "length"

    def __init__(
        self,
        length: int = 20,
        init: str = "vocab",
        init_text: str = "",
        **common,
    ) -> None:
        super().__init__(**common)
        check_size("length", length)
        check_init(init, STARTS)
        if (init == "text") != bool(init_text):
            raise InputError(f"init_text: {init_text!r} and init: {init!r} do not fit; init: text alone needs a text.")
        if init == "labels" and not self.head_spec.labels:
            raise InputError(
                f"init: 'labels', but the task {self.head_spec.task!r} has no label names; use init: vocab."
            )
        self.prompt = SoftPrompt(length, self.spec.embedding_width)

    @torch.no_grad()
    def prepare(self, backbone: Backbone) -> None:
        """Initialise the vectors from embeddings of real tokens, unless they are drawn or those of a run."""
        super().prepare(backbone)
        p, init, name = self.hparams["length"], self.hparams["init"], self.hparams["backbone"]
        if init == "random" or source(init):
            return
        if init == "text":
            self.prompt.vectors.copy_(embedded(backbone, text_ids(name, self.hparams["init_text"], p)))
            return
        self.prompt.vectors.copy_(common_words(backbone, p))
        if init == "labels":
            tokenizer = load(name)
            # There may be more labels than vectors, or fewer.
            for vector, label in zip(self.prompt.vectors, self.head_spec.labels, strict=False):
                tokens = tokenizer(label, add_special_tokens=False, return_tensors="pt")["input_ids"]
                if tokens.numel():  # a tokenizer may drop a name whole, such as that of a control character
                    vector.copy_(embedded(backbone, tokens).mean(0))

    def prompts(self, batch: Batch) -> Prompts:
        """The vectors, for the slots of every text."""
        return Prompts(embeds=self.prompt())


def embedded(backbone: Backbone, ids: Int[Tensor, "one p"]) -> Float[Tensor, "p e"]:
    """The word embeddings of p tokens."""
    return backbone.embed(ids.to(backbone.model.device))[0]


def common_words(backbone: Backbone, p: int) -> Float[Tensor, "p e"]:
    """The embeddings of p common words, drawn by the global seed; vocabularies list words roughly by frequency."""
    tokenizer = load(backbone.spec.name)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))  # None for an id that no token has
    texts = [(token or "").strip("Ġ▁") for token in tokens]
    words = [i for i, text in enumerate(texts) if len(text) > 1 and text.isalpha()]
    common = torch.tensor(words[:COMMON] or range(len(tokens)))
    return embedded(backbone, common[torch.randint(len(common), (1, p))])
