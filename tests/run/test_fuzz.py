"""Any input at all is one sentence with exit code 2, or the run goes on: never a traceback, a hang, or code that runs.

Options, configurations, rows, files, prompts, cache entries and backbones of hostile kinds. Training stops before its
first step. By default a few of each kind are tried, the same every time; `--fuzz 1000` tries so many of each, other
ones each time, and a failure prints its input and `--hypothesis-seed`. Counts are shown by `-s`.
"""

import contextlib
import gzip
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from functools import cache, partial
from pathlib import Path
from unittest import mock

import attacks
import lightning as L
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptune.data import cache as data_cache
from ptune.run import command
from ptune.run.arguments import TAKE_CLASSES
from ptune.run.finished import read
from ptune.run.known import known_options

pytestmark = [pytest.mark.slow, pytest.mark.deep]

NUMBERS = {"options": 60, "configurations": 40, "rows": 30, "files": 30, "prompts": 15, "cache": 15, "backbones": 10}
"""Inputs of each kind by default, 200 in all."""
SECONDS = 20
"""Limit of one input."""

# ---- hostile values

TEXTS = (
    "", " ", "null", "~", "true", "yes", "-1", "0", "1", "2", "3.5", "1e9", "1e400", ".nan", ".inf", "-.inf", "1:30",
    "0x10", "010", "1_000", "१२", "9" * 5000, "[]", "{}", "[1,2]", "{a: 1}", "[[[]]]", "[" * 3000, "{" * 3000,
    "[no,yes]", "[a]", "{class_path: evil.C}", '{"cl\\u0061ss_path": "evil.C"}', "[{class_path: evil.C}]", "evil.C",
    "evil", "evil.yaml", "package:evil.x/y", "package:..", "package:evil/..", "~nobody.x/y", "../../x", "/dev/null",
    "/dev/zero", "/proc/self/mem", "file", ".", "\x1b[2J\x07", "a\nb", "- a\n- b", "a: b\n", "\r", "\0", "\u202eevil",
    "\ud800", "a" * 100_000, "a/" * 3000, "!!python/object/apply:os.system [touch EXECUTED]", "&a [*a]", "*a", "<<: 1",
    "'", '"', "%s", "{sentence1}[MASK]", "[MASK]", "{0.__class__}", "[P:3]", "[P:99999999999]", "last:1", "last:-1",
    "0" * 400, "1" + "0" * 400, "--x", "-", "=", "task", "auto", "EarlyStopping", "cpu", "bf16-mixed", "toy/pair",
)  # fmt: skip
texts = st.sampled_from(TEXTS) | st.text(max_size=20) | st.integers().map(str) | st.floats().map(str)
scalars = st.none() | st.booleans() | st.integers(-3, 70) | st.integers() | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


@st.composite
def changed(draw, value):
    """A JSON value with one part of it replaced, removed, renamed or doubled."""
    if isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        match draw(st.integers(0, 8)):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {(draw(texts) if k == key else k): v for k, v in value.items()}
            case 2:
                return value | {key: draw(values)}
            case 3:
                return value | {draw(texts): draw(values)}
            case _:
                return value | {key: draw(changed(value[key]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed(value[place])), *value[place + draw(st.integers(0, 1)) :]]
    return draw(values)


@st.composite
def damaged(draw, data: bytes):
    """The bytes of a file, some of them replaced, removed, doubled, or all of them others."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 5)):
            case 0:
                del data[start:]
            case 1:
                del data[start : start + draw(st.integers(1, 50))]
            case 2:
                data[start : start + 4] = draw(st.binary(max_size=8))
            case 3:
                data[start:start] = draw(texts).encode(errors="surrogatepass")
            case 4:
                data[start:start] = data[: draw(st.integers(0, 200))]
            case _:
                return draw(st.binary(max_size=40) | texts.map(lambda text: text.encode(errors="surrogatepass")))
    return bytes(data)


# ---- the property


class Watch:
    """Paths that are written while it is on, by the audit events of the interpreter."""

    def __init__(self):
        self.on, self.written = False, []
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if not self.on:
            return
        if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self.written.append(os.path.abspath(arguments[0]))
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.symlink", "os.link"):
            self.written += [
                os.path.abspath(os.fsdecode(path)) for path in arguments[:2] if isinstance(path, str | bytes)
            ]


WATCH = Watch()
COUNTS: dict[str, Counter] = {}


def until_training(words, main, load=False):
    """Run a command line up to its first training step; with `load`, the backbone's weights are loaded, too."""

    def stop(trainer, model, data, **_):
        if load:
            model.configure_model()
            model.check_data(data)
        raise runs.Built

    with mock.patch.object(L.Trainer, "fit", stop):
        try:
            return runs.call(words, main)
        except runs.Built:
            return 0, "", ""


def check(kind: str, folder: Path, words: list | None = None, run=until_training, command: str = "fit") -> None:
    """Run a command line, or `run`, in `folder` and fail unless its end is a good one."""
    (folder / "evil.py").write_text("open('EXECUTED', 'w').close()\nclass C: pass\n")
    (folder / "evil.yaml").write_text("class_path: evil.C\n")
    (folder / "file").write_text("x")
    before = runs.contents(folder)
    sys.modules.pop("evil", None)
    WATCH.written = []
    with contextlib.chdir(folder), mock.patch.object(sys, "path", [str(folder), *sys.path]):
        WATCH.on = True
        try:
            found = attacks.outcome(words or [], command, SECONDS, run)
        finally:
            WATCH.on = False
    torch.use_deterministic_algorithms(False)
    torch.set_grad_enabled(True)
    name = found.fault or f"exit {found.code}"
    COUNTS.setdefault(kind, Counter())[name] += 1
    assert not found.fault, f"{found.fault}: {found.said}"
    assert not (folder / "EXECUTED").exists()
    after = runs.contents(folder)
    assert {path: after.get(path) for path in before} == before
    allowed = (str(folder), os.environ["PTUNE_CACHE"], "/dev/null")
    outside = [path for path in map(os.path.realpath, WATCH.written) if not path.startswith(allowed)]
    assert not [path for path in outside if "__pycache__" not in path]


@contextlib.contextmanager
def place():
    """A folder for one input, with a level above it that a path may climb to."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(os.path.realpath(top), "a", "b", "c")
        folder.mkdir(parents=True)
        yield folder


def fuzz(kind: str, strategy):
    """Run a test on as many inputs as are asked for."""

    def decorate(test):
        def run(number):
            asked = settings(
                max_examples=number or NUMBERS[kind],
                derandomize=not number,
                database=None,
                deadline=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            )
            asked(given(strategy)(test))()
            print(f"{kind}: {dict(COUNTS.get(kind, {}))}")

        run.test, run.strategy = test, strategy
        return run

    return decorate


@pytest.fixture
def number(request) -> int:
    """How many inputs are asked for; 0 for the usual ones."""
    return request.config.getoption("--fuzz")


# ---- command lines and configurations

FITTED = {f"trainer.{name}" for name in (
    "limit_train_batches", "limit_val_batches", "val_check_interval", "check_val_every_n_epoch", "log_every_n_steps",
    "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "min_epochs", "min_steps", "max_time",
    "num_sanity_val_steps", "overfit_batches", "inference_mode", "barebones", "reload_dataloaders_every_n_epochs",
)}  # fmt: skip
"""Options that Lightning reads when it trains: one step is trained."""
WITH_CODE = {f"trainer.{name}" for name in TAKE_CLASSES} | {"model", "data", "config"}
"""Options whose classes are the user's own, and are imported."""
ENDLESS = {"help", "print_config", "trainer.default_root_dir"}
GIVEN = sorted(set(known_options()) - ENDLESS)


def words_of(folder: Path, *more: str) -> list[str]:
    """A good command line with further words in its middle, which trains one step."""
    start = runs.line(folder / "run", trainer__max_steps=1)
    end = ["--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    return [*start, *more, *(end if any(word[2:].split("=")[0] in FITTED for word in more) else ())]


@st.composite
def options(draw):
    """Up to three options with values."""
    found = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        name = draw(st.sampled_from(GIVEN))
        plain = st.sampled_from(("0", "1", "2", "true", "false", "3.5", "[0]", "null", "auto", "1e-3", "cpu", "x"))
        value = draw(plain if draw(st.booleans()) else texts)
        value = "x" if "evil" in value and name in WITH_CODE else value
        if draw(st.integers(0, 15)) == 0:
            name = draw(texts)
        if draw(st.integers(0, 15)) == 0:
            name += draw(st.sampled_from([".x", ".class_path", ".init_args.x", "+", ".0", "."]))
        found += [f"--{name}={value}"] if draw(st.booleans()) else [f"--{name}", value]
    return found


@fuzz("options", options())
def test_an_option_is_one_sentence_or_the_run_goes_on(words):
    with place() as folder:
        names = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
        check("options", folder, words_of(folder, *words), runs.call if names <= FITTED else until_training)


@cache
def good() -> dict:
    """The configuration of a run."""
    words = runs.line("run", trainer__max_steps=1)
    try:
        runs.call([*words, "--print_config"])
    except runs.Exited as end:
        config = yaml.safe_load(end.out)
    del config["ckpt_path"], config["trainer"]["default_root_dir"]
    return config


@st.composite
def configurations(draw):
    """A configuration with a changed part, or as changed bytes."""
    config = good()
    if draw(st.integers(0, 3)):
        for _ in range(draw(st.integers(1, 2))):
            section = draw(st.sampled_from(["model", "data", "data", "model", "trainer", "wandb", None]))
            config = config | {section: draw(changed(config[section]))} if section else draw(changed(config))
            if not isinstance(config, dict) or not {"model", "data", "trainer", "wandb"} <= config.keys():
                break
        with contextlib.suppress(yaml.YAMLError, RecursionError):
            return yaml.safe_dump(config).encode(errors="surrogatepass")
    return draw(damaged(yaml.safe_dump(good()).encode()))


def takes_code(text: bytes) -> bool:
    """Whether a configuration names the user's own class where that is allowed."""
    return b"evil" in text


@fuzz("configurations", configurations().filter(lambda text: not takes_code(text)))
def test_a_configuration_is_one_sentence_or_the_run_goes_on(text):
    with place() as folder:
        (folder / "c.yaml").write_bytes(text)
        check("configurations", folder, ["--config", "c.yaml", "--run_dir", "run", "--seed_everything", "1"])


# ---- data


@st.composite
def bad_rows(draw):
    """A format, and rows of which one is changed."""
    style = draw(st.sampled_from(sorted(attacks.FORMATS)))
    row, _ = attacks.FORMATS[style]
    return style, [row, draw(changed(row)), row], draw(st.sampled_from(["jsonl", "json", "jsonl.gz", "csv", "tsv"]))


def written(rows: list, suffix: str) -> bytes:
    """Rows as the bytes of a file."""
    if suffix in ("csv", "tsv"):
        cells = [[str(value) for value in (row.values() if isinstance(row, dict) else [row])] for row in rows]
        header = [str(key) for key in rows[0]]
        return "\n".join(("\t" if suffix == "tsv" else ",").join(row) for row in [header, *cells]).encode(
            errors="surrogatepass"
        )
    if suffix == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue().to_pybytes()
    text = json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows))
    return gzip.compress(text.encode(), mtime=0) if suffix.endswith("gz") else text.encode()


def setup(style: str):
    """Read the data of a folder up to their first batch."""
    data = module(style)

    def run(words, main):
        def work():
            data._items = {}
            data.setup("fit")
            next(iter(data.train_dataloader()))
            next(iter(data.val_dataloader()))

        return runs.call([], lambda _: command.guarded(work))

    return run


@cache
def module(style: str):
    """A data module that reads the folder `data` of the working directory; it is built once."""
    folder = runs.FOLDER / f"fuzz-{style}"
    attacks.rows(folder, style)
    found = runs.built(attacks.trained(folder, style)).datamodule
    found.path = "data"
    return found


@fuzz("rows", bad_rows())
def test_a_row_is_one_sentence_or_the_run_goes_on(drawn):
    style, rows, suffix = drawn
    with place() as folder:
        attacks.rows(folder, style)
        if folder.parent.exists():
            (folder / "data" / "train.jsonl").unlink()
        (folder / "data" / f"train.{suffix}").write_bytes(written(rows, suffix))
        check("rows", folder, run=setup(style))


@st.composite
def bad_files(draw):
    """A format, and a damaged file of it."""
    style = draw(st.sampled_from(sorted(attacks.FORMATS)))
    suffix = draw(st.sampled_from(["jsonl", "json", "jsonl.gz", "csv", "tsv", "parquet"]))
    data = written([attacks.FORMATS[style][0]] * 3, suffix)
    return style, suffix, draw(damaged(data))


@fuzz("files", bad_files())
def test_a_data_file_is_one_sentence_or_the_run_goes_on(drawn):
    style, suffix, data = drawn
    with place() as folder:
        attacks.rows(folder, style)
        (folder / "data" / "train.jsonl").unlink()
        (folder / "data" / f"train.{suffix}").write_bytes(data)
        check("files", folder, run=setup(style))


# ---- what ptune has written


@cache
def finished() -> tuple[Path, object]:
    """A finished run, and its model."""
    run_dir = runs.finished()
    return run_dir, read(run_dir)[0]


@st.composite
def prompts(draw):
    """A damaged file of prompts."""
    data = (runs.finished() / "prompts.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    if draw(st.booleans()):
        return draw(damaged(data))
    header = json.dumps(draw(changed(json.loads(data[8 : 8 + length])))).encode(errors="surrogatepass")
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


@fuzz("prompts", prompts())
def test_a_file_of_prompts_is_one_sentence_or_the_run_goes_on(data):
    with place() as folder:
        (folder / "p.safetensors").write_bytes(data)
        _, model = finished()

        def run(words, main):
            return runs.call([], lambda _: command.guarded(lambda: model.load_prompts("p.safetensors")))

        check("prompts", folder, run=run)


@fuzz("cache", st.tuples(st.integers(0, 50), st.integers(0, 3), st.data()))
def test_an_entry_of_the_cache_is_one_sentence_or_the_run_goes_on(drawn):
    number, way, data = drawn
    with place() as folder, mock.patch.dict(os.environ, PTUNE_CACHE=str(folder / "cache")):
        attacks.rows(folder)
        with contextlib.chdir(folder):
            assert setup("cls")([], None)[0] == 0
        files = sorted(path for path in data_cache.folder().rglob("*"))
        file = files[number % len(files)]
        if file.is_dir():
            shutil.rmtree(file)
            file.write_text("in the way") if way else None
        elif way == 0:
            file.unlink()
        else:
            file.write_bytes(data.draw(damaged(file.read_bytes())))
        before = {path: path.read_bytes() for path in folder.joinpath("data").iterdir()}
        with contextlib.chdir(folder):
            found = attacks.outcome([], "fit", SECONDS, setup("cls"))
        COUNTS.setdefault("cache", Counter())[found.fault or f"exit {found.code}"] += 1
        assert not found.fault, f"{found.fault}: {found.said}"
        assert {path: path.read_bytes() for path in before} == before


@st.composite
def backbones(draw):
    """A damaged file of a backbone's folder."""
    name = draw(st.sampled_from(["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]))
    data = Path(runs.bert(), name).read_bytes()
    if name.endswith(".json") and draw(st.booleans()):
        return name, json.dumps(draw(changed(json.loads(data)))).encode()
    return name, draw(damaged(data))


@fuzz("backbones", backbones())
def test_a_backbone_is_one_sentence_or_the_run_goes_on(drawn):
    name, data = drawn
    with place() as folder:
        shutil.copytree(runs.bert(), folder / "bert")
        (folder / "bert" / name).write_bytes(data)
        check(
            "backbones", folder, [*runs.line("run"), "--model.backbone", "./bert"], partial(until_training, load=True)
        )
