"""What the tests of whole runs share: a tiny backbone, small data, and the command line in this process."""

import atexit
import contextlib
import csv
import io
import json
import os
import sys
import tempfile
import types
from functools import cache
from pathlib import Path
from unittest import mock

os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # Lightning's, of jsonargparse

import lightning as L
import torch
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from ptune.data import modules
from ptune.fit import main as fit_main
from ptune.tasks import task, toy

_temporary = tempfile.TemporaryDirectory(prefix="ptune-runs-")
atexit.register(_temporary.cleanup)
FOLDER = Path(_temporary.name)

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
QUIET = ("--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", 1, "--trainer.enable_progress_bar", False)


@cache
def bert(
    seed: int = 0, layers: int = 2, width: int = 32, positions: int = 64, lm: bool = False, more: tuple[str, ...] = ()
) -> str:
    """The folder of a random BERT that drops out, and a WordPiece tokenizer of toy words and single letters.

    `lm`: with a masked language model's head in place of the pooler; `more`: further words.
    """
    folder = FOLDER / "-".join(["bert", *map(str, (seed, layers, width, positions)), *["lm"] * lm, *more])
    letters = [f"{before}{letter}" for before in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    words = ["the", "was", "by", "and", "who", *toy.PEOPLE, *toy.VERBS, *".,?!'", *more]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *words]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=positions,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        (BertForMaskedLM if lm else BertModel)(config).save_pretrained(folder)
    BertTokenizer(vocab={word: code for code, word in enumerate(vocabulary)}).save_pretrained(folder)
    return str(folder)


@cache
def gpt2(seed: int = 0) -> str:
    """The folder of a random GPT-2 with its language model's head, and a byte-level BPE of toy words as GPT-2's.

    It spells a word with the space before it, puts no special token anywhere and has none for masks or padding.
    """
    folder, end = FOLDER / f"gpt2-{seed}", "<|endoftext|>"
    words = [" the", " was", " by", " and", *(f" {word}" for word in [*toy.PEOPLE, *toy.VERBS])]
    letters = ByteLevelBPETokenizer()
    letters.train_from_iterator(words * 3, vocab_size=500, special_tokens=[end], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters._tokenizer, eos_token=end, bos_token=end, unk_token=end
    )
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.2
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@cache
def data(name: str = "toy/pair", train: int = 10, validation: int = 7, test: int = 5) -> str:
    """A folder with the first rows of a toy task."""
    folder = FOLDER / f"{name.replace('/', '-')}-{train}-{validation}-{test}"
    folder.mkdir(exist_ok=True)
    for split, count in {"train": train, "validation": validation, "test": test}.items():
        write(folder / f"{split}.jsonl", toy.generate(name, split)[:count])
    return str(folder)


def write(file: Path, rows: list[dict]) -> None:
    """Write rows as JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def line(run_dir, method="PTuningV2", name="toy/pair", path=None, **options) -> list[str]:
    """A command line: a short run of `method` on the tiny backbone and a few rows; `a__b=1` is `--a.b 1`."""
    options = {"data__batch_size": 4, "trainer__max_epochs": 2} | options
    module = modules()[task(name).format].__name__
    words = ["--model", method, "--model.backbone", bert(), "--data", module, "--data.task", name]
    words += ["--data.path", path or data(name), "--run_dir", run_dir, *QUIET]
    words += [word for key, value in options.items() for word in (f"--{key.replace('__', '.')}", value)]
    return [str(word).lower() if isinstance(word, bool) else str(word) for word in words]


class Exited(Exception):
    """A command line that only prints has ended the process, with this code and output, as `--print_config` does."""

    def __init__(self, code: object, out: str) -> None:
        super().__init__(code, out)
        self.code, self.out = code, out


def call(words: list, command=fit_main) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line run in this process, whose environment it leaves as it was.

    `fit` and `evaluate` return what they have measured, and raise SystemExit where they do not end well.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", ["ptune"]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = command([str(word) for word in words])
        except SystemExit as end:
            if not end.code:
                raise Exited(0, out.getvalue()) from end
            code = end.code
    return code if isinstance(code, int) else 0, out.getvalue(), err.getvalue()


def built(words: list) -> types.SimpleNamespace:
    """Model, data, trainer and directory of a command line whose training does not begin."""

    def stop(trainer, model, data, **_):
        raise Built(types.SimpleNamespace(trainer=trainer, model=model, datamodule=data))

    with mock.patch.object(L.Trainer, "fit", stop):
        try:
            _, _, err = call(words)
        except Built as built:
            (found,) = built.args
            found.run_dir = found.trainer.default_root_dir
            Path(found.run_dir).mkdir(parents=True, exist_ok=True)  # an empty one is removed again
            return found
    raise AssertionError(err)


class Built(Exception):
    """Model, data and trainer of a command line, at the moment when training would begin."""


def fit(run_dir, method="PTuningV2", name="toy/pair", path=None, **options) -> dict:
    """The result.json of a run that must end well."""
    code, _, err = call(line(run_dir, method, name, path, **options))
    assert code == 0, err
    return json.loads(Path(run_dir, "result.json").read_text())


def course(result: dict) -> list[dict]:
    """The history of a result without its seconds, which no two runs share."""
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in result["history"]]


def outcome(run_dir) -> dict:
    """What two equal runs share: metrics, every logged line but for its speed and memory, trained tensors."""
    result = json.loads(Path(run_dir, "result.json").read_text())
    rows = [json.loads(line) for line in Path(run_dir, "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if not k.startswith(("speed/", "memory/"))} for row in rows]
    prompts = {name: value.tolist() for name, value in load_file(Path(run_dir, "prompts.safetensors")).items()}
    kept = {key: result[key] for key in ("metrics", "best_epoch", "steps", "limits")}
    return kept | {"history": course(result), "rows": rows, "prompts": prompts}


@cache
def finished() -> Path:
    """The directory of a finished run of one epoch, which no test changes."""
    run_dir = FOLDER / "finished"
    fit(run_dir, trainer__max_epochs=1)
    return run_dir


def rows(run_dir) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv, without its empty cells."""
    with Path(run_dir, "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]


def column(run_dir, name: str) -> list[float]:
    """The values of one column of metrics.csv."""
    return [float(row[name]) for row in rows(run_dir) if name in row]


def contents(folder) -> dict[str, bytes]:
    """Every file below a folder, by its path, byte by byte, but for the empty one that a run locks."""
    files = [file for file in Path(folder).rglob("*") if file.is_file() and file.name != ".lock"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
