"""Adding a method is one file: the name, help, advice, checkpoints, commands and the suite's claims come with it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import runs

METHOD = '''"""Residual prompt tuning, in short (Razdaibiedina et al. 2023): vectors plus an MLP of them."""

from typing import final

import torch
from torch import nn

from ptune.methods.prompt_tuning import SoftPrompt
from ptune.prompts import Prompts
from ptune.tuning.reparameterized import Reparameterized
from ptune.tuning.tuner import PromptTuner


@final
class ResidualPrompt(Reparameterized):
    """p vectors and the network that moves them."""

    def __init__(self, length: int, width: int, bottleneck: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(0.02 * torch.randn(length, width))
        self.mlp = nn.Sequential(nn.Linear(width, bottleneck), nn.ReLU(), nn.Linear(bottleneck, width))

    def forward(self):
        return (self.vectors + self.mlp(self.vectors))[None]

    @torch.no_grad()
    def folded(self) -> SoftPrompt:
        """The moved vectors."""
        prompt = SoftPrompt(*self.vectors.shape)
        prompt.vectors.copy_(self()[0])
        return prompt


@final
class ThrowAway(PromptTuner):
    """Train vectors at the input through a residual network, and the head.

    Args:
        length: Prompt length p, slots of the input.
        bottleneck: Hidden size of the network.
    """

    stored_arguments = ("length",)
    slot_argument = "length"

    def __init__(self, length: int = 3, bottleneck: int = 4, **common) -> None:
        super().__init__(**common)
        self.prompt = ResidualPrompt(length, self.spec.embedding_width, bottleneck)

    def prompts(self, batch):
        """The vectors, for the slots of every text."""
        return Prompts(embeds=self.prompt())
'''

PLUGIN = """
import sys
import ptune.methods
ptune.methods.__path__.append({folder!r})
sys.path[:0] = {tests!r}
"""

ROW = """
import methods_table
from ptune.methods.throw_away import ThrowAway
own = {"prompt.vectors"} | {f"prompt.mlp.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}
d = methods_table.WIDTH
case = methods_table.Case(ThrowAway, {"length": 2}, own, 2 * d + d * 4 + 4 + 4 * d + d, "prompt.vectors")
methods_table.TABLE["throw away"] = case
"""
"""The one row that tests/methods_table.py would get."""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs Python with the file in the package of methods: python("code") -> stdout and stderr of a good end."""
    folder = tmp_path_factory.mktemp("methods")
    (folder / "throw_away.py").write_text(METHOD)
    tests = str(Path(__file__).parent)
    plugin = tmp_path_factory.mktemp("plugin") / "with_throw_away.py"
    plugin.write_text(PLUGIN.format(folder=str(folder), tests=[tests]))

    def run(*words, code=0):
        path = os.pathsep.join([str(plugin.parent), str(runs.REPOSITORY)])
        quiet = {"PYTHONPATH": path, "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            env=os.environ | quiet,
            cwd=runs.REPOSITORY,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def command(words) -> str:
    """Code that runs `ptune ...` with the method in its package."""
    words = [str(word) for word in words]
    return f"import with_throw_away, sys; from ptune.__main__ import main; sys.exit(main({words!r}))"


@pytest.mark.slow
def test_one_file_gives_a_method_its_names_help_and_advice(python):
    assert "ThrowAway" in python("-c", command(["methods"]))
    help_ = python("-c", command(["fit", "--model.help", "ThrowAway"]))
    assert "--model.bottleneck" in help_
    assert "Hidden size of the network. (type: int, default: 4)" in help_
    words = ["fit", "--model", "ThrowAway", "--model.botleneck", "3"]
    assert "did you mean --model.bottleneck?" in python("-c", command(words), code=2)
    assert "did you mean 'ThrowAway'?" in python("-c", command(["fit", "--model", "throw_away"]), code=2)
    public = "import with_throw_away, ptune; assert 'ThrowAway' in dir(ptune); print(ptune.ThrowAway.__module__)"
    assert "ptune.methods.throw_away" in python("-c", public)


@pytest.mark.slow
def test_one_file_gives_it_runs_checkpoints_and_every_command(python, tmp_path):
    words = runs.line(tmp_path / "run", "ThrowAway", model__backbone=runs.gpt2(), trainer__max_epochs=1)
    assert "toy/pair with ThrowAway, seed 11" in python("-c", command(["fit", *words]))
    again = ["evaluate", "--config", tmp_path / "run/config.yaml", "--run_dir", tmp_path / "run"]
    assert "toy/pair with ThrowAway" in python("-c", command(again))
    assert "nearest by cosine" in python("-c", command(["inspect", tmp_path / "run", "--no-picture"]))
    exported = python("-c", command(["export", tmp_path / "run", tmp_path / "adapter", "--no-head"]))
    assert "PeftModel.from_pretrained" in exported


@pytest.mark.slow
def test_one_file_and_one_row_give_it_the_claims_of_the_suite(python, tmp_path):
    (tmp_path / "row.py").write_text(ROW)
    code = (
        "import with_throw_away, sys, pytest; "
        f"exec(open({str(tmp_path / 'row.py')!r}).read()); "
        "sys.exit(pytest.main(['tests/test_tuner.py', '-n', '0', '-k', 'throw and away', '-p', 'no:cacheprovider']))"
    )
    out = python("-c", code)
    assert int(re.findall(r"(\d+) passed", out)[-1]) >= 10, out


@pytest.mark.slow
def test_a_method_without_a_row_is_found_missing(python):
    code = (
        "import with_throw_away, sys, pytest; "
        "sys.exit(pytest.main(['tests/test_classes.py', '-n', '0', '-k', 'table', '-p', 'no:cacheprovider']))"
    )
    assert "ThrowAway" in python("-c", code, code=1)
