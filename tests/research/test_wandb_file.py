"""A space as a W&B sweep: W&B's own schema accepts it, and what its agent runs is a command line of ptune."""

import json
from itertools import chain

import pytest
import runs
import yaml

from ptune.errors import InputError
from ptune.research.space import read
from ptune.research.wandb_file import sweep
from ptune.run.arguments import prepare
from ptune.sweep import main

FLAT = (
    "p_tuning_v2",
    "p_tuning_v2_authors",
    "p_tuning",
    "prompt_tuning",
    "bitfit",
    "lora",
    "fine_tuning",
    "linear_probe",
)
FILE = """
options: {method: PTuningV2, task: rte, data.batch_size: 8}
space:
  model.lr: {low: 1.0e-4, high: 1.0e-1, log: true}
  model.weight_decay: {low: 0, high: 0.5}
  model.length: {low: 4, high: 64}
  data.max_length: {low: 32, high: 256, log: true}
  model.warmup: {low: 0, high: 0.3, step: 0.1}
  model.layers: [all, 'last:2', [0, 1]]
  model.shift_positions: [true, false]
"""


@pytest.fixture
def space(tmp_path):
    def space(text=FILE):
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return read(file), file

    return space


def drawn(config: dict) -> list[str]:
    """The command line that W&B's agent runs for a point that W&B's own engine draws."""
    engine = pytest.importorskip("sweeps", reason="needs wandb[sweeps]")
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    assert engine.schema_violations_from_proposed_config(config) == []
    run = engine.next_run(engine.SweepConfig(config), [])
    point = json.loads(json.dumps(run.config, default=lambda number: number.item()))  # as the server sends it
    filled = create_sweep_command_args({"args": point}) | {"env": ["/usr/bin/env"]}
    command = create_sweep_command(list(config["command"]))
    env, python, flag, module, *words = chain.from_iterable(filled.get(word[2:-1], [word]) for word in command)
    assert (env, python, flag, module) == ("/usr/bin/env", "python", "-m", "ptune.fit")
    return words


def test_a_listed_text_that_is_no_yaml_stays_a_text(space):
    templates = ["{sentence1} [MASK] {sentence2}", "{sentence2} [MASK]"]
    file = f"options: {{method: PTuning, task: rte}}\nspace: {{data.template: {json.dumps(templates)}}}\n"
    assert sweep(*space(file))["parameters"] == {"data.template": {"values": templates}}


def test_a_space_is_the_parameters_of_a_sweep(space):
    config = sweep(*space())
    assert config == {
        "name": "mine",
        "project": "ptune",
        "method": "bayes",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        "parameters": {
            "model.lr": {"distribution": "log_uniform_values", "min": 0.0001, "max": 0.1},
            "model.weight_decay": {"distribution": "uniform", "min": 0.0, "max": 0.5},
            "model.length": {"distribution": "int_uniform", "min": 4, "max": 64},
            "data.max_length": {"distribution": "q_log_uniform_values", "min": 32, "max": 256, "q": 1},
            "model.warmup": {"values": [0, 0.1, 0.2, 0.3]},
            "model.layers": {"values": ["all", "last:2", "[0, 1]"]},
            "model.shift_positions": {"values": [True, False]},
        },
        "command": [
            *("${env}", "python", "-m", "ptune.fit", "--model", "PTuningV2", "--data", "Classification"),
            *("--data.task", "rte", "--data.batch_size", "8", "${args}"),
        ],
    }


@pytest.mark.slow
@pytest.mark.deep
def test_the_agent_runs_a_command_line_of_ptune(space):
    words = drawn(sweep(*space()))
    assert prepare(words) == words
    assert len([word for word in words if "=" in word]) == 7
    drawn(sweep(*space(FILE + "sampler: random\npruner: asha\nmetric: loss\nseeds: [1, 2]\n")))


def test_the_other_methods_and_early_ends(space, capsys):
    config = sweep(*space(FILE + "sampler: random\npruner: asha\nmetric: loss\nseeds: [1, 2]\n"))
    assert (config["method"], config["metric"]) == ("random", {"name": "val/loss", "goal": "minimize"})
    assert config["early_terminate"] == {"type": "hyperband", "min_iter": 1, "eta": 4}
    assert config["parameters"]["seed_everything"] == {"values": [1, 2]}
    assert "W&B draws one seed a run, where a trial here averages all of them." in capsys.readouterr().err
    assert "early_terminate" not in sweep(*space(FILE + "pruner: median\n"))
    assert "W&B has no pruning by the median" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("  method: [PTuningV2, FineTuning]\n", "dimension 'method' decides which other options there are"),
        ("  size: {a: {data.shots: 4}}\n", "dimension 'size' has values that bring options"),
        ("  model.mlp: [0, 8]\n  model.init: {values: [text], when: {model.mlp: 0}}\n", "'model.init' has a condition"),
    ],
)
def test_what_wandb_cannot_express_is_refused(space, text, sentence):
    with pytest.raises(InputError, match="which W&B cannot express") as error:
        sweep(*space(f"options: {{task: rte, {'' if 'method' in text else 'method: PTuningV2'}}}\nspace:\n{text}"))
    assert sentence in str(error.value)


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.parametrize("name", FLAT)
def test_a_shipped_space_is_a_sweep(name, tmp_path, capsys):
    file = tmp_path / "sweep.yaml"
    assert main([str(runs.REPOSITORY / f"experiments/spaces/{name}.yaml"), "--wandb", str(file)]) == 0
    assert f"next: wandb sweep {file}" in capsys.readouterr().out
    prepare(drawn(yaml.safe_load(file.read_text())))
