"""Viterbi's algorithm (1967): the best tags of a sentence among those that a scheme allows."""

from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ptune.heads.tags import allowed


def best_tags(
    scores: Float[Tensor, "s w c"], lengths: Int[Tensor, " s"], labels: tuple[str, ...], scheme: str
) -> Int[Tensor, "s w"]:
    """The codes of the tags with the greatest sum of scores in each of s sentences, among all that the scheme allows.

    Transitions are allowed or not and have no scores of their own, so nothing is trained. The result is exact: sums are
    in fp64. Scores that are not finite, which a diverged model gives, are taken as the numbers next to them (NaN as 0).

    Args:
        scores: those of w words; what stands behind the end of a sentence is not read.
        lengths: number of words of each sentence, at least 1.
        labels: the c tags in the order of their codes, O among them.
        scheme: IOB1, IOB2, IOBES or BILOU.

    Returns:
        Codes, O behind the end of a sentence.
    """
    s, w, c = scores.shape
    outside = labels.index("O")
    end = torch.full((c,), -torch.inf, dtype=torch.float64)
    end[outside] = 0.0  # a sentence begins behind an O and ends before one, and has nothing but O behind its end
    within = torch.arange(w) < lengths[:, None]
    known = scores.float().nan_to_num().double().where(within[..., None], end)
    forbidden = torch.zeros(c, c, dtype=torch.float64).masked_fill(~transitions(labels, scheme), -torch.inf)
    best, origins = end.expand(s, c), []
    for score in (*known.unbind(1), end):
        reached, origin = (best[:, :, None] + forbidden).max(1)
        best = reached + score
        origins.append(origin)
    tags = [torch.full((s, 1), outside)]
    for origin in origins[:0:-1]:  # the first one leads to the O before the sentence
        tags.append(origin.gather(1, tags[-1]))
    return torch.cat(tags[:0:-1], dim=1)


@cache
def transitions(labels: tuple[str, ...], scheme: str) -> Bool[Tensor, "c c"]:
    """Whether the scheme has the tag of a column behind that of a row."""
    return torch.tensor([[allowed(before, tag, scheme) for tag in labels] for before in labels])
