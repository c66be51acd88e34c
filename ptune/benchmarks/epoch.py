"""`ptune.bench epoch`: an epoch of training and its validation, beside PEFT in pipelines that pad as is usual there."""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ptune.benchmarks.caches import fresh_cache
from ptune.benchmarks.clock import Spread, interleaved, ratio
from ptune.benchmarks.contender import LEARNING_RATE, Setting
from ptune.benchmarks.options import at_least, chosen, require_room
from ptune.benchmarks.ours import made
from ptune.benchmarks.peers import adapted
from ptune.data.base import Batch, TaskData
from ptune.data.classification import Classification
from ptune.errors import InputError, note
from ptune.methods.fine_tuning import FineTuning
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.research.tables import Cell, Table, word
from ptune.run.frozen import FrozenLayers
from ptune.tasks import all_tasks
from ptune.tuning.tuner import PromptTuner

PADDED, FULL = "PEFT-prefix-padded", "FineTuning"
COMPARED = {PADDED: "× PEFT padded to 128", FULL: "× fine-tuning"}
LONGEST = 128
"""Tokens that the authors' code pads every text to."""
TOY = ("toy/single", "toy/pair")
"""Tasks of one text and of two, short as CoLA's and MRPC's, for who has no data."""
LIMIT = 16.0
"""GiB that kept states may take."""
NOTES = (
    "Medians of the rounds, quartiles in brackets: seconds of an epoch of training and a validation, without reading "
    "and tokenizing rows, in batches of the same number of rows. × is how many times as fast a row is.",
    "ptune's rows are Lightning's Trainer with ptune's batches; -cached ones have --cache_frozen true, in an epoch "
    "after the first. PEFT's are a plain loop: forward, backward, AdamW, no logging.",
    "PEFT-prefix-padded pads all texts to 128 tokens and shuffles, as the authors of P-Tuning v2 do "
    "(THUDM/P-tuning-v2 b1520c9: pad_to_max_length, max_seq_length 128); PEFT-prefix-longest pads to the longest text "
    "of a shuffled batch, as PEFT's example does.",
)

Epoch = Callable[[], object]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this part."""
    what = "folders of data, each named after a task of ptune such as .../cola, or with columns that tell themselves"
    parser.add_argument("--data", nargs="+", default=[], metavar="DIR", help=f"{what} (default: toy tasks)")
    what = "training rows, drawn; 0 for all (default: 1000); validation takes all of its rows"
    parser.add_argument("--rows", type=at_least(0), default=1000, help=what)
    parser.add_argument("--batch", type=at_least(1), default=32, help="rows in a batch (default: 32)")
    parser.add_argument("--length", type=at_least(1), default=20, help="prompt length (default: 20)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"rows: {', '.join(ROWS)}")
    parser.set_defaults(rounds=3)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an epoch of each row and round, for each folder of data.

    Raises:
        InputError: there is no such row, or the data cannot be read or are of another format.
    """
    names, found = chosen(options.only, ROWS), []
    require_room(options, LONGEST)
    for place in options.data or TOY:
        with fresh_cache():
            epochs, left_out = {}, {}
            for name in names:
                data = read(place, options)
                try:
                    epoch = ROWS[name](Setting.of(options), data)
                    epoch()  # warms up, and fills the cache
                    epochs[name] = epoch
                except ValueError as error:  # an InputError, or what PEFT and transformers refuse
                    left_out[name] = str(error)
                    note(f"row {name} is left out: {error}")
            seconds = interleaved(epochs, options.rounds, warm_up=0, device=options.device)
            counts = {split: len(data.items_of(split)) for split in (data.task.train, data.chosen_on)}
        found.append({"data": place, "rows": counts, "left_out": left_out, "seconds": seconds})
    return {"settings": found}


def read(place: str, options: argparse.Namespace) -> Classification:
    """The rows of a toy task, or of a folder, whose task is the one that it is named after if there is one.

    Raises:
        InputError: the rows cannot be read, or have numbers instead of classes.
    """
    name = place.rstrip("/").rpartition("/")[2]
    task = place if place in TOY else name if name in all_tasks() else None
    data = Classification(
        task,
        options.backbone,
        path=None if place in TOY else place,
        batch_size=options.batch,
        max_length=LONGEST,
        train_rows=options.rows,
    )
    if not data.task.labels:
        raise InputError(f"--data {place}: its rows have a number, and all rows here classify; give another folder.")
    data.setup("fit")
    return data


def ours(method: type[PromptTuner], cached: bool = False, **arguments: Any) -> Callable[[Setting, TaskData], Epoch]:
    """An epoch of one of ptune's methods, with Lightning's Trainer and without loggers and checkpoints."""

    def row(setting: Setting, data: TaskData) -> Epoch:
        model = made(method, setting, data.head, **arguments)
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)

        def epoch() -> None:
            with tempfile.TemporaryDirectory() as folder:
                trainer = L.Trainer(
                    accelerator="gpu" if setting.device == "cuda" else "cpu",
                    devices=1,
                    precision=setting.precision,
                    max_epochs=1,
                    num_sanity_val_steps=0,
                    callbacks=[FrozenLayers(data, True, LIMIT)] if cached else [],
                    default_root_dir=folder,
                    **quiet,  # type: ignore[arg-type]
                )
                trainer.fit(model, data)

        return epoch

    return row


def theirs(padding: int | None, setting: Setting, data: TaskData) -> Epoch:
    """An epoch of PEFT's prefix tuning, as the row of `ptune.bench step` has it, over the same tokenized rows.

    Args:
        padding: tokens that every text is padded to; None for the longest text of each batch.
        setting: of all rows.
        data: rows and tokenizer.
    """
    labels = len(data.task.labels)
    model = adapted(setting.backbone, "PrefixTuningConfig", True, labels, num_virtual_tokens=setting.length)
    model = model.to(setting.device)
    optimizer = torch.optim.AdamW([v for v in model.parameters() if v.requires_grad], lr=LEARNING_RATE)
    collate = partial(_collate, data, padding)
    train = DataLoader(data.items_of(data.task.train), setting.batch, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
    validation = DataLoader(data.items_of(data.chosen_on), setting.batch, collate_fn=collate)  # type: ignore[arg-type]

    def scored(batch: Batch) -> Any:
        with setting.autocast():
            return model(**{name: value.to(setting.device) for name, value in batch.items()})

    def epoch() -> float:
        model.train()
        for batch in train:
            scored(batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            right = [(scored(batch).logits.argmax(-1).cpu() == batch["labels"]).float() for batch in validation]
        return float(torch.cat(right).mean())

    return epoch


def _collate(data: TaskData, padding: int | None, items: list[dict]) -> dict[str, Tensor]:
    kept = [{name: item[name] for name in ("input_ids", "token_type_ids") if name in item} for item in items]
    how = "longest" if padding is None else "max_length"
    batch = data.tokenizer.pad(kept, padding=how, max_length=padding, return_tensors="pt")
    return {**batch, "labels": torch.tensor([item["label"] for item in items])}


ROWS: dict[str, Callable[[Setting, TaskData], Epoch]] = {
    "LinearProbe-cached": ours(LinearProbe, cached=True),
    "PTuningV2": ours(PTuningV2),
    "PTuningV2-last2": ours(PTuningV2, layers="last:2"),
    "PTuningV2-last2-cached": ours(PTuningV2, cached=True, layers="last:2"),
    FULL: ours(FineTuning),
    "PEFT-prefix-longest": partial(theirs, None),
    PADDED: partial(theirs, LONGEST),
}


def tables(found: Mapping[str, Any]) -> list[Table]:
    """One for each folder of data."""
    return [_table(number, setting) for number, setting in enumerate(found["settings"])]


def _table(number: int, setting: Mapping[str, Any]) -> Table:
    training, validation = setting["rows"].values()

    def row(name: str, own: list[float]) -> tuple[Cell, ...]:
        spread, seconds = Spread.of(own), setting["seconds"]
        ratios = [ratio(own, seconds[other]).median if other in seconds else None for other in COMPARED]
        rate = training / spread.median
        cells = (Cell() if middle is None else Cell(f"{middle:.2f}", middle) for middle in ratios)
        return word(name), spread.cell(1, 2), Cell(f"{rate:,.0f}", rate), *cells

    return Table(
        f"epoch{number + 1}",
        f"An epoch of {training:,} rows of {setting['data']} and a validation of {validation:,}",
        ("row", "seconds", "examples/s", *COMPARED.values()),
        1,
        tuple(row(name, own) for name, own in setting["seconds"].items()),
        (*NOTES, *(f"{name} is left out: {reason}" for name, reason in setting["left_out"].items())),
    )
