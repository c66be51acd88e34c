"""Rows drawn from the training split: few shots as in LM-BFF, and rows held out to choose the checkpoint on."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from ptune.errors import InputError

DEV = "dev"
"""Name of the split that chooses a few-shot run's checkpoint: as large as its training split, from the same rows."""
HOLDOUT = "holdout"
"""Name of the split of rows that are held out of training."""


def few(classes: Sequence[str], shots: int, seed: int, origin: str) -> tuple[list[int], list[int]]:
    """Numbers of `shots` rows of every class to train on, and of as many others to choose the checkpoint on.

    The draw is LM-BFF's (Gao et al. 2021; princeton-nlp/LM-BFF 0be721a, generate_k_shot_data.py): NumPy's legacy
    generator shuffles the whole file, then the first rows of each class are taken. Rows in the order of GLUE's files
    give the very same splits.

    Raises:
        InputError: a class has fewer than 2 · `shots` rows of `origin`.
    """
    places = _by(classes, seed)
    for name, rows in places.items():
        if len(rows) < 2 * shots:
            raise InputError(
                f"--data.shots {shots}: {origin} has {len(rows)} rows of class {name!r}, and {2 * shots} are "
                f"needed to train and to choose the checkpoint on; use at most {len(rows) // 2}."
            )
    train, dev = ([i for rows in places.values() for i in rows[start : start + shots]] for start in (0, shots))
    return train, dev


def held_out(
    classes: Sequence[Hashable], together: Sequence[Hashable] | None, share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Numbers of the rows that stay in training and of those held out, both in the order of the file.

    Of each class the share `share` is held out, rounded. Rows with equal values in `together` stay together.

    Raises:
        InputError: no row would be held out, or none would stay.
    """
    units: dict[Hashable, list[int]] = defaultdict(list)
    for i in range(len(classes)):
        units[together[i] if together is not None else i].append(i)
    members = list(units.values())
    drawn = _by([classes[rows[0]] for rows in members], seed).values()
    held = sorted(i for places in drawn for unit in places[: round(share * len(places))] for i in members[unit])
    out = {*held}
    stay = [i for i in range(len(classes)) if i not in out]
    if not held or not stay:
        raise InputError(
            f"--data.holdout {share:g}: of {len(classes)} training rows {len(held)} would be held out and {len(stay)}"
            " would stay; choose another share."
        )
    return stay, held


def _by(classes: Sequence[Hashable], seed: int) -> dict[Hashable, list[int]]:
    """The numbers of each class, shuffled."""
    order = list(range(len(classes)))
    np.random.RandomState(seed).shuffle(order)
    places: dict[Hashable, list[int]] = defaultdict(list)
    for i in order:
        places[classes[i]].append(i)
    return places
