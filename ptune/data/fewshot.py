"""Few-shot splits as LM-BFF draws them (Gao et al. 2021; princeton-nlp/LM-BFF 0be721a, generate_k_shot_data.py)."""

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from ptune.errors import InputError

if TYPE_CHECKING:
    from ptune.data.rows import Rows

DEV = "dev"
"""Name of the split that chooses a few-shot run's checkpoint: as large as its training split, from the same rows."""


def few(rows: "Rows", label: str, shots: int, seed: int) -> tuple["Rows", "Rows"]:
    """`shots` rows of every class to train on, and as many others to choose the checkpoint on.

    The draw is LM-BFF's: NumPy's legacy generator shuffles the whole file, then the first rows of each class are
    taken. Rows in the order of GLUE's files give the very same splits.

    Raises:
        InputError: a class has fewer than 2 · `shots` rows, or rows have no column `label`.
    """
    order = list(range(len(rows.rows)))
    np.random.RandomState(seed).shuffle(order)
    classes: dict[str, list[int]] = defaultdict(list)
    for i in order:
        if label not in rows.rows[i]:
            raise InputError(f"{rows.where(i)}: no column {label!r}, which --data.shots {shots} draws by.")
        classes[str(rows.rows[i][label])].append(i)
    for name, places in classes.items():
        if len(places) < 2 * shots:
            raise InputError(
                f"--data.shots {shots}: {rows.origin} has {len(places)} rows of class {name!r}, and {2 * shots} are "
                f"needed to train and to choose the checkpoint on; use at most {len(places) // 2}."
            )
    train, dev = ([i for places in classes.values() for i in places[start : start + shots]] for start in (0, shots))
    return rows.take(train), rows.take(dev)
