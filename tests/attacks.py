"""Attacks on inputs and run directories, each with what must come of it; `python tests/attacks.py [WORD]` counts.

Those of a review of the state before: inputs that ended in a traceback, never ended, or were accepted wrongly, and run
directories that executed code. An attack is refused in one sentence, or the run ends well. `test_attacks.py` runs them.
"""

import contextlib
import gzip
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import runs
import torch
import yaml
from safetensors.torch import load_file, save_file

LIMIT = 30
"""Seconds after which an attack counts as hung."""
CLASSIFY = {"a": "the nurse", "b": "the pilot", "y": "yes"}
FORMATS: dict[str, tuple[dict, str]] = {
    "cls": (CLASSIFY, "--data Classification --data.task.text [a,b] --data.task.label y --data.task.labels [no,yes]"),
    "reg": (CLASSIFY | {"y": 1.5}, "--data Classification --data.task.text [a] --data.task.label y "
            "--data.task.metrics [pearson]"),
    "qa": ({"question": "who?", "context": "The nurse was", "answers": {"text": ["nurse"], "answer_start": [4]}},
           "--data SpanQA --data.task.format span_qa --data.task.text [question,context] --data.task.label answers "
           "--data.task.metrics [f1,exact_match]"),
    "tag": ({"tokens": ["the", "nurse"], "tags": ["O", "B-X"]}, "--data Tagging --data.task.format tagging "
            "--data.task.text [tokens] --data.task.label tags --data.task.labels [O,B-X,I-X] "
            "--data.task.metrics [entity_f1]"),
    "mc": ({"q": "who?", "c0": "the nurse", "c1": "the pilot", "y": 0}, "--data MultipleChoice "
           "--data.task.format multiple_choice --data.task.text [q] --data.task.choices [c0,c1] --data.task.label y"),
}  # fmt: skip
"""A row and the options of each task format."""


@dataclass(frozen=True)
class Attack:
    """One attack."""

    group: str
    name: str
    make: Callable[[Path], list]
    """Writes the files into a folder; the words of the command line."""
    refused: bool | None = True
    """Whether it must be refused; None where either is right."""
    command: str = "fit"


@dataclass(frozen=True)
class Outcome:
    """What came of a command line."""

    code: int | None
    """Exit code; None for a traceback or no end."""
    said: str
    """Standard error, or the last line of the traceback."""
    fault: str = ""
    """`traceback`, `hung`, `executed`, `lost`, `said` (not one plain line); empty where there is none."""


# ---- running one


class Hung(BaseException):
    """The time is up. No `except Exception` catches it."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise Hung after so many seconds, and every second from then on: what is hung may catch the first one.

    The timer of whoever has set one, such as pytest-timeout, runs on.
    """

    def ring(number: int, frame: Any) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


def outcome(words: list, command: str = "fit", limit: float = LIMIT, run: Callable = runs.call) -> Outcome:
    """Run a command line in this process and judge how it ends."""
    try:
        with deadline(limit):
            code, out, err = run(words, import_module(f"ptune.{command}").main)
    except Hung:
        return Outcome(None, f"no end after {limit} s", "hung")
    except runs.Exited as end:  # of --help and --print_config
        return Outcome(int(end.code), "")
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {str(error)[:200]} ({Path(place.filename).name}:{place.lineno})"
        return Outcome(None, said, "traceback")
    lines = [line for line in err.split("\n") if line and not line.startswith(("Seed set to", "note: "))]
    shown = out.split("\n") + [line for line in err.split("\n") if code or line.startswith("note: ")]  # else progress
    plain = all(line.isprintable() and len(line) < 2100 for line in shown)
    one = len(lines) == 1 and lines[0].startswith("error: ")
    fault = "" if code == 0 and plain else "" if code == 2 and plain and one else "said"
    return Outcome(code, err, fault)


def trained(folder: Path, style: str = "cls", *more: Any) -> list:
    """A command line that trains two steps on the files in `folder`."""
    method = ["--model", "PTuningV2", "--model.length", "4", "--model.backbone", runs.bert()]
    words = [*method, *FORMATS[style][1].split(), "--data.path", folder / "data", "--data.max_length", "32"]
    words += ["--data.batch_size", "4", "--trainer.max_steps", "2", "--trainer.limit_val_batches", "2"]
    return [*words, *runs.QUIET, "--run_dir", folder / "run", *more]


def rows(folder: Path, style: str = "cls", train: Any = (), validation: Any = ()) -> None:
    """Write good rows, with those given among the training and the validation rows: rows, or texts of JSON."""
    good = FORMATS[style][0]
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, bad in (("train", train), ("validation", validation)):
        lines = [json.dumps(good), json.dumps(good), *(row if isinstance(row, str) else json.dumps(row) for row in bad)]
        (folder / "data" / f"{name}.jsonl").write_bytes("\n".join([*lines, json.dumps(good), ""]).encode())


# ---- rows, files, options, configurations


def of_row(name: str, style: str, change: dict | str, refused: bool | None = True, train: bool = True) -> Attack:
    """A row with other values, or a line that is none."""

    def make(folder: Path) -> list:
        row = change if isinstance(change, str) else FORMATS[style][0] | change
        rows(folder, style, *([[row]] if train else [[], [row]]))
        return trained(folder, style)

    return Attack("rows", f"{style}: {name}", make, refused)


def of_file(name: str, file: str, data: Callable[[], bytes | pa.Table], refused: bool | None = True) -> Attack:
    """A training file of any kind."""

    def make(folder: Path) -> list:
        rows(folder)
        (folder / "data" / "train.jsonl").unlink()
        made, path = data(), folder / "data" / file
        pq.write_table(made, path) if isinstance(made, pa.Table) else path.write_bytes(made)
        return trained(folder)

    return Attack("files", name, make, refused)


def of_option(word: str, refused: bool | None = True, style: str = "cls") -> Attack:
    """An option behind a good command line."""

    def make(folder: Path) -> list:
        rows(folder, style)
        return trained(folder, style, word)

    return Attack("options", word[:100], make, refused)


def of_yaml(name: str, text: str, refused: bool | None = True) -> Attack:
    """A configuration behind a good command line."""

    def make(folder: Path) -> list:
        rows(folder)
        (folder / "c.yaml").write_text(text)
        return [*trained(folder), "--config", folder / "c.yaml"]

    return Attack("configurations", name, make, refused)


ANSWERS = {
    "nulls": {"text": None, "answer_start": None}, "letters": {"text": "ursn", "answer_start": [5, 6, 7, 4]},
    "one text for three starts": {"text": "The", "answer_start": [0, 1, 2]}, "a number": 4, "a list of numbers": [4],
}  # fmt: skip

ROWS = [
    *(of_row(f"half of a surrogate pair in {column}", style, json.dumps(row | {column: "x@"}).replace("@", "\\ud800"))
      for style, column in (("cls", "a"), ("cls", "b"), ("qa", "question"), ("mc", "q"), ("mc", "c0"), ("mc", "c1"),
                            ("reg", "a")) for row in [FORMATS[style][0]]),
    *(of_row(name, style, text) for style in FORMATS for name, text in {
        "JSON nested 50,000 deep": '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}",
        "objects nested 50,000 deep": '{"a": ' * 50_000 + "1" + "}" * 50_000,
        "a whole number of 5,000 digits": '{"a": ' + "9" * 5000 + "}",
    }.items()),
    of_row("label 10**400", "reg", {"y": 10**400}), of_row("label 1e300", "reg", {"y": 1e300}),
    of_row("label NaN", "reg", {"y": float("nan")}), of_row("label 1_000", "reg", {"y": "1_000"}),
    of_row("label in Devanagari digits", "reg", {"y": "१२"}), of_row("label true", "reg", {"y": True}, None),
    *(of_row(f"answers: {name}{' (validation)' * val}", "qa", {"answers": value}, True, not val)
      for name, value in ANSWERS.items() for val in (False, True)),
    of_row("answers: scalars", "qa", {"answers": {"text": "nurse", "answer_start": 4}}, None),
    of_row("NaN as text", "cls", {"a": float("nan")}), of_row("Infinity as text", "cls", {"a": float("inf")}, None),
    of_row("NaN as a word", "tag", {"tokens": ["the", float("nan")]}),
    of_row("Infinity as a word", "tag", {"tokens": ["the", float("inf")]}),
    of_row("control characters as text", "cls", {"a": "\x1b[2J\0"}, None),
    of_row("control characters as label", "cls", {"y": "\x1b[2J\0\u202e"}),
    of_row("a label of 10 MB", "cls", {"y": "y" * 10_000_000}),
]  # fmt: skip


def _damaged() -> bytes:
    data = bytearray(gzip.compress((json.dumps(CLASSIFY) + "\n").encode() * 50, mtime=0))
    data[len(data) // 2 : len(data) // 2 + 8] = b"\xff" * 8
    return bytes(data)


def _columns(n: int = 3, **more: Any) -> pa.Table:
    return pa.table({name: [value] * n for name, value in CLASSIFY.items()} | more)


FILES = [
    of_file("gzip with damaged contents", "train.jsonl.gz", _damaged),
    of_file("gzip cut off", "train.jsonl.gz", lambda: gzip.compress(json.dumps(CLASSIFY).encode() * 99)[:40]),
    of_file("gzip of 280 MB of blank lines", "train.jsonl.gz", lambda: gzip.compress(b"\n" * 280_000_000)),
    of_file("gzip of a line of 280 MB", "train.csv.gz", lambda: gzip.compress(b"a" * 280_000_000)),
    of_file("Parquet with a time outside of year 1 to 9999", "train.parquet",
            lambda: _columns(when=pa.array([0, -(2**60), 0], pa.timestamp("us")))),
    of_file("Parquet of 3,000,000 rows in some kB", "train.parquet", lambda: _columns(3_000_000)),
    of_file("Parquet cut off", "train.parquet", lambda: b"PAR1" + b"\0" * 40 + b"PAR1"),
    of_file("JSON list nested deep", "train.json", lambda: b"[" * 50_000 + b"]" * 50_000),
    of_file("JSON list of a number of 5,000 digits", "train.json", lambda: b"[" + b"9" * 5000 + b"]"),
    of_file("JSON list of lists of 9 MB", "train.json", lambda: b"[" + b"[]," * 3_000_000 + b"[]]"),
    of_file("CSV with a NUL", "train.csv", lambda: b"a,b,y\nx,\0,no\nx,z,yes\n", None),
    of_file("CSV whose header has escapes", "train.csv", lambda: b"\x1b]0;owned\x07,b,y\nx,z,yes\n"),
    of_file("not UTF-8", "train.csv", lambda: b"a,b,y\n\xff\xfe,z,yes\n"),
]  # fmt: skip

OPTIONS = [of_option(f"--{word}") for word in (
    "model.length=1000000000", "model.length=null", "model.mlp=1000000000", "model.lr=null", "model.lr=.nan",
    "model.lr=.inf", "model.lr=1e400", "model.weight_decay=.nan", "model.warmup=.nan", "model.decay=.nan",
    "model.length=1:30", "data.max_length=99999999999999999999", "data.batch_size=99999999999999999999",
    "model.backbone=package:.", "model.backbone=package:..", "model.backbone=package:../x",
    "model.backbone=package:a..b/x", "model.backbone=package:nope.nope/x", "model.backbone=~nobody/x",
    "data.task.where=[x]", "data.task.prepare=builtins.print",
    "data.task.evaluate=[validation,validation]", "data.task.metrics=[accuracy,accuracy]",
    "data.task.labels=[no,yes,'']", "data.task.text=[a,a]", "data.task.text=[y]", "data.task.name=../../esc",
    "data.task.name=", "data.task.train=../x", "run_dir=", "run_dir=a\0b", "wandb.timeout=.nan", "wandb.timeout=-1",
    "trainer.limit_train_batches=0.0001", "trainer.limit_val_batches=0.0001", "trainer.val_check_interval=0",
    "trainer.val_check_interval=1000000", "trainer.check_val_every_n_epoch=0", "trainer.log_every_n_steps=0",
    "trainer.log_every_n_steps=-1", "trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=-1",
    "trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=.nan", "trainer.overfit_batches=2",
    "trainer.overfit_batches=0.00001", "trainer.precision=transformer-engine", "trainer.devices=-1",
    "trainer.devices=99", "trainer.devices=a", "trainer.devices=[5]", "trainer.accelerator=tpu",
    "trainer.strategy=ddp_spawn", "trainer.strategy=xla", "trainer.strategy=ddp_notebook", "trainer.callbacks=Timer",
    "seed_everything=true", "data.data_seed=99999999999999999999",
    'data.task={"class_path": "evil.C"}', 'data.task={"cl\\u0061ss_path": "evil.C"}', "data.task.class_path=evil.C",
    'model.layers={"class_path": "evil.C"}', 'model.schedule={"class_path": "evil.C"}', "model.lr.class_path=evil.C",
    'data.path=[{"class_path": "evil.C"}]', 'trainer.precision={"class_path": "evil.C"}',
    'wandb.project={"class_path": "evil.C"}',
)] + [of_option(f"--{word}", None) for word in (
    "trainer.callbacks=ptune.run.callbacks.Telemetry", "trainer.max_time=00:00:00:00", "trainer.profiler=simple",
    "trainer.default_root_dir=/proc/x", "trainer.barebones=true", "trainer.fast_dev_run=1",
    "trainer.check_val_every_n_epoch=null", "trainer.limit_val_batches=0", "trainer.limit_train_batches=0",
    "trainer.max_epochs=0", "trainer.max_steps=0", "trainer.inference_mode=false", "trainer.detect_anomaly=true",
    "trainer.callbacks=ModelCheckpoint", "trainer.callbacks=BatchSizeFinder", "trainer.callbacks=LearningRateFinder",
    "trainer.callbacks=ModelSummary", "trainer.callbacks=StochasticWeightAveraging", "trainer.plugins=[x]",
    "trainer.num_sanity_val_steps=2", "trainer.reload_dataloaders_every_n_epochs=1", "trainer.model_registry=x",
    "model.warmup=1e9", "data.pad_to_multiple_of=1000000", "data.task.max_length=4", "data.task.max_length=-1",
    "data.task.evaluate=[dev]",
)]  # fmt: skip

CONFIGURATIONS = [of_yaml(name, text) for name, text in {
    "trainer null": "trainer: null\n", "trainer list": "trainer: [1]\n", "wandb 7": "wandb: 7\n",
    "recursive anchor": "trainer: &a\n  callbacks: *a\n", "nested 5,000 deep": f"model: {'[' * 5000}",
    "a number of 5,000 digits": f"seed_everything: {'9' * 5000}\n",
    "alias bomb": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)),
    "50,000 keys": "".join(f"k{i}:\n" for i in range(20_000)), "100 MB": "#" * 100_000_000,
    "two equal keys": "seed_everything: 1\nseed_everything: 2\n", "Python tags": "model: !!python/name:os.system\n",
    "null byte": "model: \"a\\0b\"\n", "control characters": 'model: "\\e[2Jx"\n', "empty": "", "a list": "- 1\n",
    "a class in a plain option": "data: {class_path: Classification, init_args: {task: {class_path: evil.C}}}\n",
}.items()]  # fmt: skip

# ---- run directories


def of_directory(name: str, change: Callable[[dict, Path], None], command: str, refused: bool | None = True) -> Attack:
    """A run directory, relative to the working one, with a changed configuration or changed files."""

    def make(folder: Path) -> list:
        shutil.copytree(runs.finished(), folder / "got")
        evil = "open('EXECUTED', 'w').close()\nfrom ptune import Classification as D, PTuningV2 as C\n"
        (folder / "got" / "evil.py").write_text(evil)
        (folder / "evil.py").write_text(evil)
        config = yaml.safe_load((folder / "got" / "config.yaml").read_text())
        change(config, folder / "got")
        if config:
            (folder / "got" / "config.yaml").write_text(yaml.safe_dump(config))
        return ["got", *{"inspect": ["--no-picture"], "export": ["adapter"], "evaluate": []}[command]]

    return Attack("run directories", f"{command}: {name}", make, refused, command)


def put(*keys: str, value: Any) -> Callable[[dict, Path], None]:
    """A change that sets one entry of a configuration."""

    def change(config: dict, folder: Path) -> None:
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    return change


def shell(config: dict, folder: Path) -> None:
    """Rows whose names are a command line, for a `prepare` that runs it."""
    config["data"]["init_args"] |= {"task": {"prepare": "subprocess.call", "text": ["a"]}, "path": "got"}
    for split in ("train", "validation"):
        (folder / f"{split}.csv").write_text('sh,-c,"touch EXECUTED"\n1,2,3\n')


def tensors(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict, Path], None]:
    """Changed tensors in the file of prompts."""

    def made(config: dict, folder: Path) -> None:
        from safetensors import safe_open

        with safe_open(folder / "prompts.safetensors", "pt") as file:
            metadata = file.metadata()
        values = {name: change(value) for name, value in load_file(folder / "prompts.safetensors").items()}
        save_file(values, folder / "prompts.safetensors", metadata)

    return made


def told(config: dict, folder: Path) -> None:
    """Metadata of megabytes and escapes."""
    values = load_file(folder / "prompts.safetensors")
    save_file(values, folder / "prompts.safetensors", {"method": "\x1b[2J" + "x" * 5_000_000, "backbone": "\r\n"})


def write(name: str, data: bytes) -> Callable[[dict, Path], None]:
    """Another content of a file."""

    def change(config: dict, folder: Path) -> None:
        (folder / name).write_bytes(data)
        if name == "config.yaml":
            config.clear()

    return change


def pickle(config: dict, folder: Path) -> None:
    """A checkpoint that is code."""
    for name in ("best.ckpt", "last.ckpt", "prompts.safetensors"):
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch EXECUTED'\ntR.")


MODEL, DATA = ("model", "init_args"), ("data", "init_args")
CHANGES: dict[str, Callable[[dict, Path], None]] = {
    "prepare is a function": shell,
    "the model is code": put("model", "class_path", value="got.evil.C"),
    "the data module is code": put("data", "class_path", value="got.evil.D"),
    "a package that is code": put(*MODEL, "backbone", value="package:got.evil.x/y"),
    "a class in an option": put(*DATA, "task", value={"class_path": "evil.C"}),
    "a class in a text": put(*DATA, "task", value='{"class_path": "evil.C"}'),
    "a class in an escaped text": put(*DATA, "task", value='{"cl\\u0061ss_path": "evil.C"}'),
    "a class among path": put(*DATA, "path", value=[{"class_path": "evil.C"}]),
    "checkpoints are code": pickle,
    "an unknown hidden size": put(*MODEL, "length", value=None),
    "half precision": tensors(torch.Tensor.half), "whole numbers": tensors(lambda x: x.long() * 0),
    "truth values": tensors(torch.Tensor.bool), "NaN": tensors(lambda x: x * float("nan")),
    "infinite": tensors(lambda x: x / 0), "metadata of megabytes": told,
    "an empty configuration": write("config.yaml", b""), "half a configuration": write("config.yaml", b"model: {cla"),
    "a configuration of escapes": write("config.yaml", b'model: {class_path: "\\e[2Jx.y"}\n'),
    "no prompts": write("prompts.safetensors", b""),
}  # fmt: skip
ONLY = {"inspect": set(CHANGES) - {"checkpoints are code"}, "export": set(CHANGES)}
WITHOUT = {"half precision", "whole numbers", "truth values", "NaN", "infinite", "metadata of megabytes", "no prompts"}
"""Changes of the file of prompts, which evaluation does not read."""
DIRECTORIES = [
    of_directory(name, change, command, None if command == "evaluate" and name in WITHOUT else True)
    for command in ("inspect", "export", "evaluate")
    for name, change in CHANGES.items()
] + [
    of_directory("callbacks are code", put("trainer", "callbacks", value=[{"class_path": "evil.C"}]), command,
                 None if command == "export" else False)
    for command in ("inspect", "export", "evaluate")
]  # fmt: skip

ATTACKS = [*ROWS, *FILES, *OPTIONS, *CONFIGURATIONS, *DIRECTORIES]


def run(attack: Attack, folder: Path) -> Outcome:
    """Run an attack in an empty folder, which becomes the working one, and judge what came of it."""
    words = attack.make(folder)
    before = runs.contents(folder)
    with contextlib.chdir(folder), contextlib.ExitStack() as stack:
        sys.path.insert(0, str(folder))
        stack.callback(sys.path.remove, str(folder))
        for name in [name for name in sys.modules if name in ("evil", "got", "got.evil")]:
            del sys.modules[name]
        found = outcome(words, attack.command)
    after = runs.contents(folder)
    fault, said = found.fault, found.said
    if (folder / "EXECUTED").exists():
        fault = "executed"
    elif {name: after.get(name) for name in before} != before:
        fault = "lost"
    elif not fault and attack.refused is not None and found.code != (2 if attack.refused else 0):
        fault = "accepted" if attack.refused else "refused"
    elif not fault and found.code == 2 and after != before:
        fault, said = "left", f"{said} {sorted(after.keys() - before.keys())}"
    return Outcome(found.code, said, fault)


def main(word: str = "") -> int:
    """Run the attacks whose names have the word; print those that succeed, and counts."""
    counts: dict[str, Counter] = {}
    for attack in ATTACKS:
        if word not in f"{attack.group} {attack.name}":
            continue
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            found = run(attack, Path(folder))
        kind = found.fault or {0: "ended well", 2: "one sentence"}.get(found.code, str(found.code))
        counts.setdefault(attack.group, Counter())[kind] += 1
        if found.fault or os.environ.get("ALL"):
            seconds = time.process_time() - start
            print(
                f"{kind}: {attack.group}: {attack.name[:100]!r} ({seconds:.1f} s)\n    {found.said[-400:]!r}",
                flush=True,
            )
    kinds = ["one sentence", "ended well", *sorted({kind for group in counts.values() for kind in group})]
    kinds = list(dict.fromkeys(kinds))
    print(f"{'':<18}", *(f"{kind:>13}" for kind in kinds))
    for group, found in counts.items():
        print(f"{group:<18}", *(f"{found[kind]:>13}" for kind in kinds))
    return sum(found[kind] for found in counts.values() for kind in kinds[2:])


if __name__ == "__main__":
    import conftest  # noqa: F401  the environment of the tests

    sys.exit(main(*sys.argv[1:]) > 0)
