"""Adding a method is one file: the name, help, advice, checkpoints, commands and the suite's claims come with it."""

import re
from pathlib import Path

import processes
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

COMMANDS = """
import sys
import with_throw_away
import ptune
from ptune.__main__ import main

def run(*words, code=0):
    found = main([str(word) for word in words])
    assert found == code, (words, found)

run("methods")
run("fit", "--model.help", "ThrowAway")
run("fit", "--model", "ThrowAway", "--model.botleneck", "3", code=2)
run("fit", "--model", "throw_away", code=2)
print("public", ptune.ThrowAway.__module__, "ThrowAway" in dir(ptune))
run("fit", *{line!r})
run("evaluate", "--config", "{run}/config.yaml", "--run_dir", "{run}")
run("inspect", "{run}", "--no-picture")
run("export", "{run}", "{run}/adapter", "--no-head")
"""

CLAIMS = """
import methods_table
import pytest
from pathlib import Path

def tests(name, *words):
    file = str(Path(methods_table.__file__).with_name(name))
    return pytest.main([file, *words, "-n", "0", "-p", "no:cacheprovider"])

print("without a row", tests("test_classes.py", "-k", "table"))
from ptune.methods.throw_away import ThrowAway
own = {"prompt.vectors"} | {f"prompt.mlp.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}
d = methods_table.WIDTH
case = methods_table.Case(ThrowAway, {"length": 2}, own, 2 * d + d * 4 + 4 + 4 * d + d, "prompt.vectors")
methods_table.TABLE["throw away"] = case
sys.exit(tests("test_tuner.py", "-k", "throw and away"))
"""
"""With the one row that tests/methods_table.py would get."""


@pytest.fixture
def python(tmp_path):
    """Runs code with the file in the package of methods; what it prints."""
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "throw_away.py").write_text(METHOD)
    (tmp_path / "with_throw_away.py").write_text(PLUGIN.format(folder=str(folder), tests=[str(Path(__file__).parent)]))

    def run(code):
        (tmp_path / "commands.py").write_text(code)
        done = processes.Command(["commands.py"], tmp_path).wait()
        assert done.code == 0, done.out + done.err
        return done.out + done.err

    return run


@pytest.mark.slow
def test_one_file_gives_a_method_its_names_help_runs_and_commands_and_with_a_row_the_claims_of_the_suite(
    python, tmp_path
):
    line = runs.line(tmp_path / "run", "ThrowAway", model__backbone=runs.gpt2(), trainer__max_epochs=1)
    out = python(COMMANDS.format(line=line, run=tmp_path / "run") + CLAIMS)
    assert re.search("ThrowAway +Train vectors at the input through a residual network", out)
    assert "Hidden size of the network. (type: int, default: 4)" in out
    assert "did you mean --model.bottleneck?" in out
    assert "did you mean 'ThrowAway'?" in out
    assert "public ptune.methods.throw_away True" in out
    assert out.count("toy/pair with ThrowAway, seed 11") == 2, "fit and evaluate"
    assert "nearest by cosine" in out
    assert "PeftModel.from_pretrained" in out
    assert "without a row 1\n" in out
    assert int(re.findall(r"(\d+) passed", out)[-1]) >= 10, out
