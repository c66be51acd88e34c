"""Prompts of several runs over one backbone, whose rows share a batch, in Python and as `ptune predict RUN RUN`."""

import json

import pytest
import runs
import torch

import ptune
from ptune.data import modules
from ptune.errors import InputError
from ptune.predict import main

TINY = runs.bert()
PROMPTS = {
    "pair": ("PTuningV2", "toy/pair", {"length": 4}),
    "pair2": ("PTuningV2", "toy/pair", {"length": 4}),
    "tags": ("PTuningV2", "toy/tagging", {"length": 4}),
    "answers": ("PTuningV2", "toy/qa", {"length": 4, "shift_positions": True}),
    "gated": ("PTuningV2", "toy/single", {"length": 4, "init": "identity"}),
    "adaptive": ("APT", "toy/pair", {"length": 4}),
    "late": ("LatePromptTuning", "toy/pair", {"length": 4}),
    "choice": ("PromptTuning", "toy/choice", {"length": 3}),
    "slots": ("PTuning", "toy/single", {"length": 3}),
    "memory": ("PrefixMemory", "toy/single", {}),
    "words": ("DePT", "toy/single", {"length": 3, "rank": 2, "tokens": 61}),
    "probe": ("LinearProbe", "toy/single", {}),
}
ANSWERS = ("label", "answers", "tags")


def saved(file, method: str, name: str, options: dict, backbone: str = TINY):
    """The file of a prompt with random tensors."""
    task = ptune.task(name)
    model_of, data_of = getattr(ptune, method), modules()[task.format]
    slots = options["length"] if model_of.slot_argument else 0
    data = data_of(task, backbone, slots=slots, max_length=64 - options.get("length", 0))
    model = model_of(backbone=backbone, head=data.head, **options)
    model.configure_model()
    for value in model.trained().values():
        torch.nn.init.normal_(value.data, std=0.5)
    model.check_data(data)
    model.save_prompts(file)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A saved prompt of each kind, by its name."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("bank")
    return {name: saved(root / f"{name}.safetensors", *PROMPTS[name]) for name in PROMPTS}


@pytest.fixture(scope="module")
def bank(trained):
    return ptune.PromptBank(trained, batch_size=16)


def rows_of(name: str) -> list[dict]:
    lines = (runs.Path(runs.data(PROMPTS[name][1])) / "test.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in ANSWERS} for line in lines]


def mixed() -> list[tuple[str, dict]]:
    """Rows of all prompts, one of each after the other."""
    by_name = {name: rows_of(name) for name in PROMPTS}
    return [(name, by_name[name][i]) for i in range(len(by_name["pair"])) for name in PROMPTS]


def test_scores_of_a_mixed_batch_are_those_of_each_prompt_alone(trained, bank):
    rows, seen = mixed(), []
    checked = [bank.of(name).checked(row) for name, row in rows]
    for name, numbers, _, scores in bank.scored([name for name, _ in rows], checked):
        data, model = bank.of(name).data, ptune.load(trained[name]).model
        batch = data.collate(data.items([checked[i] for i in numbers]))
        with torch.inference_mode():
            torch.testing.assert_close(scores, model(batch), atol=1e-5, rtol=1e-4)
        seen += [(name, i) for i in numbers]
    assert len(set(seen)) == len(seen) == len(rows)


def test_answers_are_those_of_each_prompt_alone_in_the_order_of_the_rows(trained, bank):
    rows, found = mixed(), bank(mixed())
    for name, path in trained.items():
        expected = ptune.load(path)([row for own, row in rows if own == name])
        ours = [answer for (own, _), answer in zip(rows, found, strict=True) if own == name]
        assert json.loads(json.dumps(ours), parse_float=lambda x: 0) == json.loads(
            json.dumps(expected), parse_float=lambda x: 0
        )


def test_prompts_of_one_form_share_a_pass_and_all_share_the_backbone_in_memory(bank, monkeypatch):
    backbones = {id(predictor.model.backbone) for predictor in bank.prompts.values()}
    assert len(backbones) == 1
    passes = []
    backbone = bank.of("pair").model.backbone
    monkeypatch.setattr(
        backbone,
        "forward",
        lambda batch, prompts, go=backbone.forward: passes.append(len(batch["input_ids"])) or go(batch, prompts),
    )
    bank([("pair", rows_of("pair")[0]), ("pair2", rows_of("pair")[1]), ("tags", rows_of("tags")[0])])
    assert passes == [3]


@pytest.mark.parametrize("method", ["BitFit", "LoRA", "FineTuning"])
def test_a_method_that_changes_the_backbone_is_refused(method, tmp_path):
    file = saved(tmp_path / "x.safetensors", method, "toy/single", {})
    with pytest.raises(InputError, match=f"{method} trains the backbone itself, so it shares no backbone"):
        ptune.PromptBank({"x": file})


def test_another_backbone_and_an_unknown_name_are_refused(trained, tmp_path):
    other = saved(tmp_path / "other.safetensors", *PROMPTS["pair"], backbone=runs.bert(seed=5))
    with pytest.raises(InputError, match="is not that of pair"):
        ptune.PromptBank({"pair": trained["pair"], "other": other})
    bank = ptune.PromptBank({"pair": trained["pair"]})
    with pytest.raises(InputError, match="row 1: 'pear' is no prompt of the bank, did you mean 'pair'"):
        bank([("pear", rows_of("pair")[0])])
    with pytest.raises(InputError, match=r"row 1: 'who\?' is no pair of a prompt's name and a row"):
        bank(("who?", "the nurse"))
    with pytest.raises(InputError, match="needs at least one prompt"):
        ptune.PromptBank({})


# ---- ptune predict RUN RUN ... --route COLUMN


def predict(*words) -> tuple[int, list[dict], str]:
    """Exit code, printed answers and stderr."""
    code, out, err = runs.call([*words, "--device", "cpu"], main)
    return code, [json.loads(line) for line in out.splitlines()], err


def test_rows_of_a_file_are_answered_by_the_run_that_their_column_names(trained, bank, tmp_path):
    rows = mixed()
    values = {"tags": "toy/tagging", "gated": "mine"}  # by the task that one run has, by a stated name
    runs.write(tmp_path / "in.jsonl", [{"to": values.get(name, name)} | row for name, row in rows])
    asked = [f"mine={path}" if name == "gated" else path for name, path in trained.items()]
    code, answers, err = predict(*asked, "--input", tmp_path / "in.jsonl", "--route", "to", "--batch_size", 16)
    assert (code, err) == (0, "")
    expected = []
    for i, ((name, _), answer) in enumerate(zip(rows, bank(rows), strict=True)):
        own = {"answers": answer} if bank.of(name).data.several else answer
        expected.append({"row": i, "run": values[name] if name == "gated" else name} | own)
    assert answers == json.loads(json.dumps(expected))


def test_a_row_of_no_run_is_told_with_its_line_and_the_others_are_answered(trained, tmp_path):
    row = rows_of("pair")[0]
    columns = ["pair2", "pears", "toy/pair", 1, "pair"]
    lines = [*({"to": value} | row for value in columns), row, {"to": "pair"}]
    runs.write(tmp_path / "in.jsonl", lines)
    code, answers, err = predict(trained["pair"], trained["pair2"], "--input", tmp_path / "in.jsonl", "--route", "to")
    assert code == 1
    assert [(answer["row"], answer["run"]) for answer in answers] == [(0, "pair2"), (4, "pair")]
    starts = [
        "2: to: 'pears' is no run and no task of one, did you mean 'pair'?",
        "3: to: 'toy/pair' is the task of pair and pair2; name the run.",
        "4: to: '1' is no run and no task of one, choose one of: pair, pair2, toy/pair.",
        "6: no column 'to', which says what run answers the row.",
        "7: pair: no column",
    ]
    for line, start in zip(err.splitlines(), starts, strict=True):
        assert line.startswith(f"error: {tmp_path}/in.jsonl, line {start}")


def test_without_a_column_every_run_answers_every_row(trained, tmp_path):
    rows, names = rows_of("pair"), ("pair2", "pair")
    runs.write(tmp_path / "in.jsonl", rows)
    target = tmp_path / "out.csv"
    code, _, err = predict(*(trained[name] for name in names), "--input", tmp_path / "in.jsonl", "--output", target)
    assert (code, err.startswith("note: every run answers every row")) == (0, True)
    alone = {name: ptune.load(trained[name])(rows) for name in names}
    expected = [[str(i), name, alone[name][i]["label"]] for i in range(len(rows)) for name in names]
    assert [line.split(",")[:3] for line in target.read_text().splitlines()] == [["row", "run", "label"], *expected]


def test_mistakes_in_naming_runs_are_one_sentence_and_write_nothing(trained, tmp_path):
    other = saved(tmp_path / "other.safetensors", *PROMPTS["pair"], backbone=runs.bert(seed=5))
    runs.write(tmp_path / "in.jsonl", [{"to": "pair"} | rows_of("pair")[0]])
    (tmp_path / "in.txt").write_text("the nurse")
    pair, tags = trained["pair"], trained["tags"]
    for words, sentence in [
        ([pair, other, "--route", "to"], "other: its backbone "),
        ([pair, tags, "--route", "too"], "--route too: the rows have no such column, did you mean 'to'?"),
        ([pair, tags, "--output", tmp_path / "out.csv"], f"--output {tmp_path}/out.csv: answers of classification and"),
        ([pair, f"pair={tags}"], f"{tags}: {pair} is called 'pair', too; give it another name, as NAME="),
        ([pair, "tags=nowhere"], "nowhere: does not exist; give a run directory"),
        ([pair, tags, "--input", tmp_path / "in.txt", "--route", "to"], f"--route to: rows of {tmp_path}/in.txt have"),
        ([pair, tags, "--format", "glue", "--output", tmp_path], "--format glue: the benchmark's file has answers of"),
    ]:
        code, answers, err = predict("--input", tmp_path / "in.jsonl", *words)
        (*_, error) = err.splitlines()
        assert (code, answers, error[: len(sentence) + 7]) == (2, [], f"error: {sentence}")
        assert len([line for line in err.splitlines() if not line.startswith("note: ")]) == 1
    assert {file.name for file in tmp_path.iterdir()} == {"in.jsonl", "in.txt", "other.safetensors"}
