"""`ptune.bench predict`: answers a second of a trained prompt beside transformers' pipeline, and of many prompts."""

import argparse
import random
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from ptune.backbone.pretrained import origin
from ptune.benchmarks.clock import Spread, interleaved, ratio
from ptune.benchmarks.contender import LABELS
from ptune.benchmarks.options import at_least
from ptune.benchmarks.peers import classifier
from ptune.benchmarks.shapes import WORDS
from ptune.data.classification import Classification
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.research.tables import Cell, Table, word
from ptune.serving.bank import PromptBank
from ptune.serving.loading import load
from ptune.tasks.spec import TaskSpec
from ptune.tuning.tuner import PromptTuner

MIXES: dict[str, Callable[[random.Random], int]] = {
    "many short, few long": lambda draw: min(120, 3 + int(draw.expovariate(1 / 25))),
    "all lengths alike": lambda draw: draw.randint(3, 87),
}
"""The words of a text, drawn: 3 to 120, 27 in the mean; 3 to 87, 45 in the mean."""
TASKS, LENGTH = 8, 20
"""Prompts that share a batch, and the length of each."""
OURS = "ptune"

Answers = list[dict[str, Any]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of this part."""
    parser.add_argument("--rows", type=at_least(1), default=256, help="texts (default: 256)")
    parser.add_argument("--batch", type=at_least(1), default=32, help="texts in a batch (default: 32)")


def texts(rows: int, mix: str) -> list[str]:
    """Texts of mixed length, the same in every call."""
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=MIXES[mix](draw))) for _ in range(rows)]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds for all texts of each contender and round, by mix, and of a batch of many prompts beside one of one.

    Also the largest difference of a score between contenders, and of a text among others from the text alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked = contenders(options, Path(folder))
        found = [_compared(options, asked, mix) for mix in MIXES]
        return {"rows": options.rows, "batch": options.batch, "mixes": found, "bank": _bank(options, Path(folder))}


def _compared(options: argparse.Namespace, asked: Mapping[str, Callable], mix: str) -> dict[str, Any]:
    given = texts(options.rows, mix)
    first, *others = (ask(given) for ask in asked.values())
    pairs = [(row, other) for answers in others for row, other in zip(first, answers, strict=True)]
    calls = {name: partial(ask, given) for name, ask in asked.items()}
    return {
        "mix": mix,
        "seconds": interleaved(calls, options.rounds, warm_up=0, device=options.device),
        "other_labels": sum(row["label"] != other["label"] for row, other in pairs),
        "largest_difference": max(abs(row["score"] - other["score"]) for row, other in pairs),
    }


def contenders(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[list[str]], Answers]]:
    """What answers texts: ptune, transformers' pipeline and a loop, all with the weights of one model.

    The model is the backbone with its pooler and a linear head, which a LinearProbe of ptune and transformers'
    `AutoModelForSequenceClassification` share. The pipeline is `pipeline("text-classification", batch_size=...)`; the
    loop is what a careful user writes, DataCollatorWithPadding over the texts in their order.
    """
    data = Classification(TaskSpec(text=("text",), labels=LABELS), options.backbone)
    torch.manual_seed(1)
    file = saved(LinearProbe, data, folder / "probe.safetensors", pool="pooler")
    asked = load(file, device=options.device, batch_size=options.batch)
    model: Any = classifier(options.backbone, False).eval().to(options.device)
    model.config.id2label, model.config.label2id = dict(enumerate(LABELS)), {}
    model.classifier.load_state_dict(asked.model.head.get_submodule("linear").state_dict())
    tokenizer = AutoTokenizer.from_pretrained(**origin(options.backbone))
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device=options.device)
    limits = {"truncation": True, "max_length": data.max_length}
    collate = transformers.DataCollatorWithPadding(tokenizer)

    @torch.inference_mode()
    def loop(given: list[str]) -> Answers:
        loader = DataLoader([tokenizer(text, **limits) for text in given], options.batch, collate_fn=collate)  # type: ignore[arg-type]
        scores = torch.cat([model(**part.to(options.device)).logits.softmax(-1).cpu() for part in loader])
        return [{"label": LABELS[row.argmax()], "score": row.max().item()} for row in scores]

    return {
        OURS: lambda given: asked(given),
        "transformers' pipeline": lambda given: pipeline(given, batch_size=options.batch, **limits),
        "DataCollatorWithPadding": loop,
    }


def saved(method: type[PromptTuner], data: Classification, file: Path, **arguments: Any) -> Path:
    """The file of a method's random tensors, as a run would leave it."""
    model = method(backbone=data.backbone, head=data.head, **arguments)
    model.configure_model()
    for value in model.trained().values():
        torch.nn.init.normal_(value.data, std=0.2)
    model.check_data(data)
    model.save_prompts(file)
    return file


def _bank(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A batch whose texts have the prompts of TASKS tasks, each with its own head, beside a batch of one task."""
    data = Classification(TaskSpec(text=("text",), labels=LABELS), options.backbone)
    files = {f"task{i}": saved(PTuningV2, data, folder / f"{i}.safetensors", length=LENGTH) for i in range(TASKS)}
    bank = PromptBank(files, device=options.device, batch_size=options.batch)
    names = list(files)
    rows = [bank.of(names[0]).checked(text) for text in texts(options.rows, "all lengths alike")]
    owners = {"one task": [names[0]] * len(rows), f"{TASKS} tasks": [names[i % TASKS] for i in range(len(rows))]}
    calls = {name: partial(lambda own: list(bank.scored(own, rows)), own) for name, own in owners.items()}
    seconds = interleaved(calls, options.rounds, device=options.device)
    worst = 0.0
    for name, numbers, _, scores in bank.scored(owners[f"{TASKS} tasks"], rows):
        for i, row in zip(numbers, scores, strict=True):
            ((_, _, alone),) = bank.of(name).scored([rows[i]])
            worst = max(worst, (alone[0] - row).abs().max().item())
    return {"seconds": seconds, "largest_difference": worst}


def tables(found: Mapping[str, Any]) -> list[Table]:
    """One for each mix, and one for prompts together."""
    many = f"{found['rows']:,} texts in batches of {found['batch']}"
    made = [
        _table(
            f"predict{number + 1}",
            f"{many}, {each['mix']}",
            OURS,
            found["rows"],
            each,
            f"Contenders have the same weights; {each['other_labels']} labels and at most "
            f"{each['largest_difference']:.1e} of a score differ from {OURS}'s.",
        )
        for number, each in enumerate(found["mixes"])
    ]
    bank = found["bank"]
    note = f"A text's score differs by at most {bank['largest_difference']:.1e} from that of the text alone."
    return [*made, _table("bank", f"Prompts together: {many}", "one task", found["rows"], bank, note)]


def _table(name: str, title: str, base: str, rows: int, found: Mapping[str, Any], note: str) -> Table:
    def row(who: str, own: list[float]) -> tuple[Cell, ...]:
        spread, times = Spread.of(own), ratio(found["seconds"][base], own)
        rate = rows / spread.median
        return word(who), spread.cell(1, 3), Cell(f"{rate:,.0f}", rate), times.cell(1, 2)

    return Table(
        name,
        title,
        ("row", "seconds", "rows/s", f"× the time of {base}"),
        1,
        tuple(row(who, own) for who, own in found["seconds"].items()),
        ("Medians of the rounds, quartiles in brackets; a ratio is the median of those of each round.", note),
    )
