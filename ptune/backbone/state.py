"""State of a forward pass, for the places of a model that no keyword of its forward reaches."""

import threading
from typing import final

from torch import Tensor

from ptune.backbone.visitor import Visitor
from ptune.prompts import Prompts


@final
class ForwardPass(threading.local):
    """What the forward pass of this thread hands to its word embeddings and to attentions without a keyword for it.

    Each thread has its own, so that several threads may run forward passes of one backbone. Not a `ContextVar`, because
    torch.compile traces a `threading.local` and cannot trace a `ContextVar` (torch 2.13).
    """

    soft_prompt: tuple[tuple[Tensor, Tensor] | None, Tensor | None] | None = None
    """The slots "b t" with the vectors "n s e" that the word embeddings put into them, and what they add to all tokens
    "n t e", until they have done so."""
    feed_forward: Tensor | None = None
    """What the feed-forward block that runs now reads, for an adapter beside it."""
    read: Tensor | None = None
    """The places "b a" of the tokens for which the last layer is computed; None: of all."""
    prefix: Prompts | Visitor | None = None
    """The prefix that a family of `ptune.backbone.families` reads."""


CURRENT = ForwardPass()
