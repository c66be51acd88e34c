"""Prompts of several runs over one backbone, whose rows share a batch."""

import json

import pytest
import runs
import torch

import ptune
from ptune.data import modules
from ptune.errors import InputError

TINY = runs.bert()
PROMPTS = {
    "pair": ("PTuningV2", "toy/pair", {"length": 4}),
    "pair2": ("PTuningV2", "toy/pair", {"length": 4}),
    "tags": ("PTuningV2", "toy/tagging", {"length": 4}),
    "answers": ("PTuningV2", "toy/qa", {"length": 4, "shift_positions": True}),
    "gated": ("PTuningV2", "toy/single", {"length": 4, "init": "identity"}),
    "choice": ("PromptTuning", "toy/choice", {"length": 3}),
    "slots": ("PTuning", "toy/single", {"length": 3}),
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
    with pytest.raises(InputError, match="needs at least one prompt"):
        ptune.PromptBank({})
