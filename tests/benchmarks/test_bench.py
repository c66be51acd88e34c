"""`python -m ptune.bench`: rows side by side on tiny shapes, tables from their JSON, and options that are wrong."""

import json
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertForSequenceClassification

from ptune.backbone.tokenizer import load
from ptune.bench import main
from ptune.benchmarks import data, epoch, memory, ours, peers, predict, products, rows, scale, shapes, step
from ptune.benchmarks.clock import Spread
from ptune.benchmarks.contender import Contender, Setting
from ptune.benchmarks.resident import largest
from ptune.benchmarks.shapes import random_bert
from ptune.tasks import toy

TINY = {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64, "max_position_embeddings": 256}
COMMON = {"device": "cpu", "precision": "32-true", "rounds": 2, "batch": 4, "length": 3}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return random_bert(tmp_path_factory.mktemp("bench") / "tiny", **TINY)


@pytest.fixture
def setting(backbone):
    return Setting(backbone, tokens=8, batch=4, length=3)


@pytest.fixture
def no_child(monkeypatch):
    """Memory without a process of its own for each row, which takes seconds."""
    monkeypatch.setattr(memory, "peak", lambda name, setting: 1.0)


@pytest.mark.parametrize("name", rows.ROWS)
def test_every_row_takes_a_step_and_says_what_it_trains(name, setting):
    contender = rows.ROWS[name](setting)
    contender.step()
    whole = sum(value.numel() for value in BertForSequenceClassification.from_pretrained(setting.backbone).parameters())
    prefix, head = 3 * 2 * 3 * 32, 2 * 33
    expected = {
        "LinearProbe": head,
        "LinearProbe-cached": head,
        "PromptTuning": 3 * 32 + head,
        "PTuningV2": prefix + head,
        "PTuningV2-no-dropout": prefix + head,
        "PTuningV2-last2": prefix * 2 // 3 + head,
        "PTuningV2-last2-cached": prefix * 2 // 3 + head,
        "PEFT-prefix": prefix + head,
        "PEFT-prefix-no-dropout": prefix + head,
        "PEFT-prompt": 3 * 32 + head,
        "transformers-fine-tuning": whole,
        "matrix-products": 0,
    }
    if name in expected:
        assert contender.trained == expected[name]
    if name != "PTuning":  # its encoder is not kept
        assert contender.stored >= 4 * contender.trained


def test_a_row_that_reads_kept_states_has_the_loss_of_one_that_computes_them(setting, monkeypatch):
    losses = []
    monkeypatch.setattr(ours, "training", lambda setting, model, loss, stored: losses.append(loss().item()))
    torch.manual_seed(0)
    options = {"layers": "last:2", "prefix_dropout": 0.0, "head_dropout": 0.0}
    for row in (ours.ours, ours.cached):
        torch.manual_seed(0)
        row(ours.PTuningV2, **options)(setting)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_peft_drops_out_as_run_and_not_where_it_is_said(backbone):
    for dropout, expected in ((True, 0.1), (False, 0.0)):
        model = peers.adapted(backbone, "PrefixTuningConfig", dropout, num_virtual_tokens=3)
        assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {expected}


def test_the_floor_has_the_products_that_a_step_needs(setting):
    maps = products.linear_maps(setting)
    assert [back for *_, back in maps] == [False] * 3 + [True] * (3 * 6 - 3 + 2)  # three layers of six, pooler, head
    multiplications = sum(rows * weight.numel() * (1 + back) for weight, rows, back in maps[:-2])
    sizes = {"tokens": 8, "length": 3, "batch": 4, "layers": 3, "width": 32}
    attention = 4 * 6 * 3 * 8 * (3 + 8) * 32
    ffn = 4 * (8 + 8 + 1) * 2 * 2 * (4 * 32 * 32 - 32 * 64)  # the tiny model's is half as wide as a BERT's
    assert multiplications == scale.multiplications(**sizes) - attention - ffn
    floor = products.products(setting)
    with FlopCounterMode(display=False) as counter:
        floor.step()
    ends = sum(rows * weight.numel() * (1 + back) for weight, rows, back in maps[-2:])
    assert counter.get_total_flops() == 2 * (multiplications + ends + attention)


def test_the_table_of_a_step_is_recomputed_from_its_json(setting, monkeypatch, no_child, capsys, tmp_path):
    def planted(name, seconds):
        return lambda setting: Contender(lambda: time.sleep(seconds), trained=7, stored=2048)

    times = {"PTuningV2": 0.004, rows.AS_RUN: 0.012, rows.EQUAL: 0.004, rows.FULL: 0.03, rows.FLOOR: 0.002}
    monkeypatch.setattr(rows, "ROWS", {name: planted(name, seconds) for name, seconds in times.items()})
    file = tmp_path / "step.json"
    line = ["step", "--backbone", setting.backbone, "--tokens", "8", "16", "--batch", "4", "--length", "3"]
    assert main([*line, "--rounds", "3", "--steps", "2", "--json", str(file), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert "host" not in found["about"]
    assert found["about"]["threads"] == torch.get_num_threads()
    first, second = found["found"]["settings"]
    assert (first["tokens"], second["tokens"]) == (8, 16)
    assert first["real_tokens"] == 8 + 7 + 8 + 7
    for table, each in zip(step.tables(found["found"]), found["found"]["settings"], strict=True):
        cells = {row[0].text: [cell.value for cell in row[1:]] for row in table.rows}
        ms, examples, tokens, prefix, equal, full, floor, *_ = cells["PTuningV2"]
        own = Spread.of(each["rows"]["PTuningV2"]["seconds"]).median
        assert (ms, examples, tokens) == pytest.approx((own, 4 / own, each["real_tokens"] / own))
        assert prefix > 1.5 * equal
        assert full > 1.5 * prefix
        assert floor < 0.9
        assert cells[rows.FULL][5] == 1
    assert f"{torch.get_num_threads()} thread" in out
    assert main(["show", str(file)]) == 0
    assert capsys.readouterr().out == out


def test_rows_that_peft_cannot_run_are_left_out_with_the_reason(setting, monkeypatch, no_child, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    line = ["--backbone", setting.backbone, "--tokens", "8", "--batch", "4", "--rounds", "1", "--steps", "1"]
    assert main(["step", *line, "--only", "LinearProbe", "PEFT-LoRA"]) == 0
    out, err = capsys.readouterr()
    assert "| LinearProbe |" in out
    assert "| PEFT-LoRA |" not in out
    assert "row PEFT-LoRA is left out: package 'peft' is not installed; pip install \"ptune[peft]\"." in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["step", "--only", "PTuningV3"], "--only PTuningV3: there is no such row; did you mean 'PTuningV2'?"),
        (["step", "--rounds", "0"], "'0' is no whole number of at least 1"),
        (["step", "--tokens", "600"], "have no room for 600 tokens"),
        (["step", "--json", "none/x.json"], "there is no folder none; make it first"),
        (["step", "--device", "cuda"], "torch finds no GPU here"),
        (["epoch", "--data", "cola"], "--backbone is missing: the tokenizer of the random MiniLM-L6 spells the words"),
        (["steps"], "invalid choice: 'steps'"),
        (["show", "none.json"], "none.json: cannot be read"),
        (["data", "--data", "none.jsonl"], "--data none.jsonl: cannot be read"),
        (["scale", "--only", "height"], "--only height: there is no such row"),
    ],
)
def test_a_wrong_option_is_one_sentence(line, said, backbone, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = [*line, "--backbone", backbone] if line[0] in ("step", "data", "scale") else line
    assert main(line) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert err.count("\n") == 1
    assert not out


def test_a_file_of_something_else_is_refused(tmp_path, capsys):
    for text in ("{}", "[]", "no json", '{"part": "step"}'):
        (tmp_path / "x.json").write_text(text)
        assert main(["show", str(tmp_path / "x.json")]) == 2
        assert "is no file of ptune.bench" in capsys.readouterr().err


def test_an_epoch_has_its_rows_and_ratios(backbone, tmp_path):
    names = ["LinearProbe-cached", "PTuningV2", "PEFT-prefix-padded"]
    for split, count in {"train": 9, "validation": 5}.items():
        rows_ = [{"text": "the film " * (i + 1), "label": ("no", "yes", "maybe")[i % 3]} for i in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows_)))
    options = SimpleNamespace(**COMMON | {"rounds": 1}, backbone=backbone, data=[str(tmp_path)], rows=8, only=names)
    found = epoch.measure(options)
    (each,) = found["settings"]
    assert list(each["seconds"]) == names
    assert not each["left_out"]
    assert each["rows"] == {"train": 8, "validation": 5}
    (table,) = epoch.tables(found)
    ratios = {row[0].text: row[3].value for row in table.rows}
    assert ratios["PEFT-prefix-padded"] == 1
    assert ratios["PTuningV2"] == each["seconds"]["PEFT-prefix-padded"][0] / each["seconds"]["PTuningV2"][0]
    assert "× fine-tuning" in table.columns
    assert table.rows[0][4].text == "-"


def test_an_epoch_of_numbers_is_refused(backbone, tmp_path, capsys):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text('{"text": "a film", "label": 0.5}\n{"text": "slow", "label": 1.5}\n')
    assert main(["epoch", "--backbone", backbone, "--data", str(tmp_path)]) == 2
    assert "its rows have a number" in capsys.readouterr().err


def test_peft_pads_to_128_in_the_pipeline_of_the_authors(backbone):
    options = SimpleNamespace(**COMMON, backbone=backbone, rows=8)
    toy = epoch.read("toy/single", options)
    items = [toy.items_of("train")[i] for i in range(4)]
    assert epoch._collate(toy, 128, items)["input_ids"].shape == (4, 128)
    assert epoch._collate(toy, None, items)["input_ids"].shape == (4, max(item["length"] for item in items))


def test_contenders_of_predict_give_the_same_answers(backbone, monkeypatch):
    monkeypatch.setattr(predict, "TASKS", 3)
    found = predict.measure(SimpleNamespace(**COMMON, backbone=backbone, rows=12))
    for each in found["mixes"]:
        assert each["other_labels"] == 0
        assert each["largest_difference"] < 1e-5
    assert found["bank"]["largest_difference"] < 1e-5
    tables = predict.tables(found)
    assert [table.name for table in tables] == ["predict1", "predict2", "bank"]
    names = [row[0].text for row in tables[0].rows]
    assert names == [predict.OURS, "transformers' pipeline", "DataCollatorWithPadding"]
    assert tables[0].rows[0][3].value == 1


def test_scale_shows_the_expected_slope_beside_what_was_measured(backbone, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scale, "SIZES", {"length": (1, 4), "depth": (1, 2)})
    monkeypatch.setattr(scale, "MINILM_L6", {"hidden_size": 32, "num_hidden_layers": 2})
    file, svg = tmp_path / "scale.json", tmp_path / "scale.svg"
    line = ["scale", "--backbone", backbone, "--tokens", "8", "--batch", "2", "--rounds", "2"]
    assert main([*line, "--only", "length", "depth", "--json", str(file), "--svg", str(svg)]) == 0
    out, drawn = capsys.readouterr().out, svg.read_text()
    assert "A step by layers" in out
    assert "expected" in drawn
    found = json.loads(file.read_text())["found"]
    guess = scale.expected(found["sizes"]["depth"]["products"], [1.0, 2.0])
    # In units of d^2: 8 tokens, 7 of which leave the last layer behind its attention, and 42 of attention in a layer.
    assert guess[1] / guess[0] == pytest.approx((8 * 45 - 7 * 18 + 2 * 42) / (8 * 21 - 7 * 18 + 42))
    assert main(["show", str(file), "--svg", str(svg)]) == 0
    assert svg.read_text() == drawn


@pytest.mark.parametrize("text", [" ".join(shapes.WORDS), toy.generate("toy/pair", "train")[0]["sentence1"]])
def test_a_word_of_the_texts_is_one_token_of_the_random_backbone(text, backbone):
    words = text.strip(".").split()
    assert len(load(backbone).tokenize(text)) == len(words) + text.endswith(".")


def test_multiplications_are_linear_but_for_tokens_and_width():
    sizes = {"tokens": 8, "length": 4, "batch": 2, "layers": 3, "width": 32}
    steps = {}
    for name, value in sizes.items():
        one, two, three = (scale.multiplications(**sizes | {name: k * value}) for k in (1, 2, 3))
        steps[name] = three - 2 * two + one
    assert {name for name, bend in steps.items() if bend} == {"tokens", "width"}


def test_rows_of_a_file_are_written_as_often_as_is_asked(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"sentence1": "one", "sentence2": "two", "label": 1}\n')
    known = data.pairs(tmp_path / "pairs.jsonl")
    data.make(known, tmp_path / "made", 3)
    written = [json.loads(line) for line in (tmp_path / "made" / "train.jsonl").open()]
    assert [row["a"] for row in written] == ["one 0", "one 1", "one 2"]
    assert {row["b"] for row in written} == {"two"}


@pytest.mark.slow
@pytest.mark.deep
def test_starts_are_measured_in_processes_of_their_own(backbone):
    options = SimpleNamespace(**COMMON | {"rounds": 1}, backbone=backbone, data=None, rows=50)
    found = data.measure(options)
    assert list(found["starts"])[:4] == [f"{k}, {s} start" for k in ("ptune", "datasets") for s in data.STARTS]
    (table,) = data.tables(found)
    assert all(row[3].value > 50 for row in table.rows)
    parent = largest() / memory.MIB
    assert all(row[3].value != pytest.approx(parent, rel=1e-4) for row in table.rows)
    more = scale.measure(SimpleNamespace(**COMMON, backbone=backbone, tokens=8, only=["rows"], most=1000))
    assert scale.tables(more)[0].rows[0][1].value > 0
    assert "MiB of a first start" in scale.picture(more)


@pytest.mark.slow
@pytest.mark.deep
def test_memory_is_that_of_the_row_alone(tmp_path):
    name = random_bert(tmp_path / "wide", num_hidden_layers=2)
    small = memory.peak("LinearProbe", Setting(name, tokens=8, batch=2))
    large = memory.peak("FineTuning", Setting(name, tokens=8, batch=2))
    weights = 4 * sum(v.numel() for v in BertForSequenceClassification.from_pretrained(name).parameters()) / memory.MIB
    assert 0.5 * weights < small < 3 * weights
    assert 3.5 * weights < large < 9 * weights  # weights, gradients, AdamW's two moments, and what its step needs
