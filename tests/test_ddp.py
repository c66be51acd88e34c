"""Two processes with batches of b are one process with batches of 2b."""

import ast
import json
import os
from pathlib import Path
from unittest import mock

import processes
import pyarrow.parquet as pq
import pytest
import runs
from plain_training import train
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*does not have many workers")]

CLOSE = 1e-5
KEY_BIAS = "attention.self.key.bias"
"""Attention does not depend on it: its gradient is rounding, of which Adam makes steps."""
SIZES = {"train": 14, "validation": 7, "test": 1}
"""Not a multiple of the global batch; uneven over two processes; not one for each."""


def launch(command: list, folder) -> str:
    """Standard output of the first of two processes; both must end well."""
    first, second = processes.two(command, folder)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    return first.out


def assert_same_tensors(one, other) -> None:
    """Two saved files hold the same tensors."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for name in first.keys() - {name for name in first if name.endswith(KEY_BIAS)}:
        assert (first[name] - second[name]).abs().max() < CLOSE, name


@pytest.mark.parametrize(
    "form",
    [
        {},
        pytest.param({"model__init": "tokens", "model__gate": True, "model__scaled": True}, marks=pytest.mark.deep),
        pytest.param({"model__form": "hidden", "model__init": "tokens"}, marks=pytest.mark.deep),
        pytest.param({"model__also": "[bias, layer_norm]"}, marks=pytest.mark.deep),
        pytest.param(
            {"method": "APT", "model__also": "[lora, adapter]", "model__also_gate": True}, marks=pytest.mark.deep
        ),
    ],
    ids=["prefix", "gate over tokens", "hidden", "companions", "gates and adapters"],
)
def test_the_command_line_trains_a_tagger_in_two_processes_as_in_one(tmp_path, form):
    data = runs.data("toy/tagging", **SIZES)
    options = {"model__head_dropout": 0, "model__prefix_dropout": 0, "model__lr": 0.02, "trainer__max_epochs": 3} | form
    one = runs.fit(tmp_path / "one", name="toy/tagging", path=data, data__batch_size=4, **options)
    two = {"data__batch_size": 2, "trainer__devices": 2, "trainer__strategy": "ddp"}
    words = runs.line("two", name="toy/tagging", path=data, **options | two)
    del words[words.index("--run_dir") : words.index("--run_dir") + 2]  # each process finds the same default directory
    out = launch(["-m", "ptune.fit", *words], tmp_path)
    (found,) = (tmp_path / "runs").glob("*/*/*/*")
    found.rename(tmp_path / "two")
    assert_same_tensors(tmp_path / "one" / "prompts.safetensors", tmp_path / "two" / "prompts.safetensors")
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert (result["batch_size"], result["steps"]) == (one["batch_size"], one["steps"]) == (4, 12)
    assert found.name.endswith(f"-s11-{result['hash']}")
    assert result["data_fingerprint"] == one["data_fingerprint"]
    for split, metrics in one["metrics"].items():
        assert result["metrics"][split] == pytest.approx(metrics, abs=CLOSE), split
        answers = [pq.read_table(tmp_path / name / "predictions" / f"{split}.parquet") for name in ("one", "two")]
        assert answers[1].num_rows == result["rows"][split] == SIZES[split]
        assert answers[0].select(["row", "answer", "right"]).equals(answers[1].select(["row", "answer", "right"]))
    for name in ("val/loss", "grad_norm/prompt", "prompt_norm/layer_01"):
        assert runs.column(tmp_path / "two", name) == pytest.approx(runs.column(tmp_path / "one", name), abs=1e-4), name
    assert out.count(f"toy/tagging with {form.get('method', 'PTuningV2')}") == 1, "one process reports"
    assert "batch     4 (2 x 2 processes x 1 batches)" in out


def test_a_plain_trainer_with_two_devices_needs_no_flag(tmp_path):
    data = runs.data("toy/pair", **SIZES)
    with mock.patch.dict(os.environ):
        one = train(runs.bert(), data, str(tmp_path / "one.safetensors"), 1, 4)
    script = Path(__file__).with_name("plain_training.py")
    out = launch([script, runs.bert(), data, tmp_path / "two.safetensors", 2, 2], tmp_path)
    (line,) = [text for text in out.splitlines() if text.startswith("METRICS")]
    metrics, world = line.removeprefix("METRICS ").split(" WORLD ")
    assert world == "2"
    assert ast.literal_eval(metrics) == pytest.approx(one, abs=CLOSE)
    assert_same_tensors(tmp_path / "one.safetensors", tmp_path / "two.safetensors")


def test_two_processes_refuse_a_tensor_without_a_gradient_and_end(tmp_path):
    (tmp_path / "unread.py").write_text(
        "import lightning as L\nimport ptune\nfrom ptune.methods.prompt_tuning import SoftPrompt\n\n\n"
        "class Unread(ptune.PromptTuner):\n"
        "    def __init__(self, **common):\n"
        "        super().__init__(**common)\n"
        "        self.prompt = SoftPrompt(2, 4)\n\n"
        "    def prompts(self, batch):\n"
        "        return None\n\n\n"
        f"data = ptune.Classification('toy/pair', backbone={runs.bert()!r}, path={runs.data()!r}, batch_size=2)\n"
        f"model = Unread(backbone={runs.bert()!r}, head=data.head)\n"
        "options = {'max_steps': 2, 'accelerator': 'cpu', 'devices': 2, 'strategy': 'ddp', 'logger': False}\n"
        "trainer = L.Trainer(**options, accumulate_grad_batches=2, enable_checkpointing=False)\n"
        "try:\n"
        "    trainer.fit(model, data)\n"
        "except ptune.InputError as error:\n"
        "    print('refused:', error, 'at step', trainer.global_step)\n"
    )
    out = launch(["unread.py"], tmp_path)
    assert "refused: prompt.vectors gets no gradient" in out
    assert "at step 0" in out
