"""Texts of the training split, for initial values that are read from them."""

import os
from collections.abc import Sized

import lightning as L
import torch
from torch import Tensor

from ptune.errors import InputError

COLUMNS = ("input_ids", "token_type_ids")


def seed() -> int:
    """The run's seed, which Lightning's `seed_everything` leaves in the environment."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def training_texts(trainer: L.Trainer, rows: int) -> list[dict[str, Tensor]]:
    """The texts of training rows that are drawn by the run's seed, the same ones in every process.

    Args:
        trainer: a trainer that is about to fit.
        rows: how many rows are drawn; of a loader whose items are batches (`batch_size` None), one batch is.

    Returns:
        What a backbone reads of each text, without padding and prompt slots: `input_ids` "1 t", and `token_type_ids`
        where the rows have them.

    Raises:
        InputError: the training data cannot be drawn from, because they are a stream.
    """
    trainer.fit_loop.setup_data()
    loader = trainer.train_dataloader
    data = loader.dataset  # type: ignore[union-attr]
    if not isinstance(data, Sized):
        raise InputError(
            "init: 'tokens' draws rows, which a stream of training data does not allow; use init: identity."
        )
    drawn = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed())).tolist()
    items = data[drawn[0]] if loader.batch_size is None else [data[i] for i in drawn[:rows]]  # type: ignore[union-attr]
    batch = loader.collate_fn(items)  # type: ignore[union-attr]
    text = batch["attention_mask"].bool()
    text = text & ~batch["slots"] if "slots" in batch else text
    return [{name: batch[name][row, kept][None] for name in COLUMNS if name in batch} for row, kept in enumerate(text)]
