"""A space's file becomes points, and they become command lines; a mistake in it is one sentence."""

import random

import pytest
import runs

from ptune.errors import InputError
from ptune.research.dimensions import Choice, Range
from ptune.research.space import read
from ptune.run import catalog

FILE = """
options:
  task: rte
  data.holdout: 0.1
space:
  method:
    FineTuning: {weight_decay: 0.01}
    PTuningV2:
  model.lr: {low: 1.0e-5, high: 1.0e-1, log: true}
  model.length: {low: 4, high: 64, step: 4, when: {method: PTuningV2}}
  model.layers: {values: [all, 'last:4'], when: {method: PTuningV2}}
  data.batch_size: [16, 32]
seeds: [1, 2]
"""


@pytest.fixture
def space(tmp_path):
    def space(text=FILE, **options):
        file = tmp_path / "space.yaml"
        file.write_text(text)
        return read(file, **options)

    return space


def words(cell) -> dict:
    return dict(zip(cell.words[::2], cell.words[1::2], strict=True))


def test_a_dimension_is_a_range_or_a_list_and_may_have_conditions(space):
    method, rate, length, layers, size = space().dimensions
    tuned, prefix = {"method": "FineTuning", "weight_decay": 0.01}, {"method": "PTuningV2"}
    assert method == Choice("method", {"FineTuning": tuned, "PTuningV2": prefix}, {})
    assert rate == Range("model.lr", 1e-5, 1e-1, True, False, None, {})
    assert length == Range("model.length", 4, 64, False, True, 4, {"method": ("PTuningV2",)})
    assert layers.values == ["all", "last:4"]
    assert size.values == ["16", "32"]


def test_a_point_is_the_options_of_the_runs_of_a_trial(space):
    found = space()
    wanted = {"method": "PTuningV2", "model.lr": 0.00031, "model.length": 8, "model.layers": "last:4"}
    wanted |= {"data.batch_size": "16"}
    assert found.point(lambda each: wanted[each.name]) == wanted
    one, two = found.cells(7, wanted)
    assert (one.run_dir, two.run_dir) == tuple(found.runs / "trial-0007" / f"seed={seed}" for seed in (1, 2))
    assert one.values == {"trial": "7", "seed": "1"}
    assert words(one) == {
        **{"--model": "PTuningV2", "--data": "Classification", "--data.task": "rte", "--data.holdout": "0.1"},
        **{"--model.lr": "0.00031", "--model.length": "8", "--model.layers": "last:4", "--data.batch_size": "16"},
        "--seed_everything": "1",
    }
    plain = found.point(lambda each: (wanted | {"method": "FineTuning"})[each.name])
    assert set(plain) == {"method", "model.lr", "data.batch_size"}
    assert words(found.cells(0, plain)[1])["--model.weight_decay"] == "0.01"
    (alone,) = space(FILE.replace("seeds: [1, 2]", "runs: runs/mine")).cells(0, plain)
    assert alone.run_dir.as_posix() == "runs/mine/trial-0000"


def test_a_grid_is_every_point_whose_conditions_hold(space):
    text = "options: {task: rte}\nsampler: grid\nspace:\n  method: [FineTuning, PTuningV2]\n"
    text += "  model.length: {low: 4, high: 12, step: 4, when: {method: PTuningV2}}\n  model.weight_decay: [0, 0.1]\n"
    points = space(text).grid()
    fine = [{"method": "FineTuning", "model.weight_decay": decay} for decay in ("0", "0.1")]
    prefix = [{"method": "PTuningV2", "model.length": length} for length in (4, 8, 12)]
    prefix = [each | {"model.weight_decay": decay} for each in prefix for decay in ("0", "0.1")]
    assert points == [*fine, *prefix]


@pytest.mark.parametrize(
    ("range_", "whole", "values"),
    [
        ("model.length: {low: 4, high: 6}", True, [4, 5, 6]),  # by the option's type
        ("model.weight_decay: {low: 0, high: 1, step: 0.25}", False, [0, 0.25, 0.5, 0.75, 1]),
        ("model.weight_decay: {low: 0, high: 1, step: 0.4}", False, [0, 0.4, 0.8]),
        ("model.weight_decay: {low: 0, high: 1}", False, None),
        ("model.warmup: {low: 10, high: 30, step: 10, int: true}", True, [10, 20, 30]),
        ("trainer.limit_train_batches: {low: 1, high: 3}", True, [1, 2, 3]),  # may be both: by its ends
        ("trainer.limit_train_batches: {low: 0.1, high: 0.3, step: 0.1}", False, [0.1, 0.2, 0.3]),
        ("model.length: {low: 1, high: 64, log: true}", True, None),
    ],
)
def test_a_range_has_whole_numbers_where_its_option_does(space, range_, whole, values):
    (found,) = space(f"options: {{method: PTuningV2, task: rte}}\nspace:\n  {range_}\n").dimensions
    assert found.whole is whole
    assert found.values == values
    assert not whole or all(type(end) is int for end in found.ends)
    assert values is None or found.ends == [values[0], values[-1]]


LENGTH = "step: 4, when: {method: PTuningV2}"


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("space:", "spaces:", "'spaces' is no part of a space, did you mean 'space'?"),
        ("low: 1.0e-5", "low: 0.1", "dimension 'model.lr': low 0.1 must be less than high 0.1."),
        ("low: 1.0e-5", "low: 0", "dimension 'model.lr': low 0 must be greater than 0, because its logarithm"),
        ("low: 1.0e-5, ", "", "dimension 'model.lr': low is missing; a range has low and high."),
        ("low: 1.0e-5", "low: small", "dimension 'model.lr': low must be a number, not 'small'."),
        ("log: true", "log: 1", "dimension 'model.lr': log must be true or false, not 1."),
        ("log: true", "logs: true", "'logs' is no part of a dimension, did you mean 'log'?"),
        ("log: true", "log: true, step: 0.1", "log and step cannot go together"),
        ("step: 4", "step: 61", "step 61 must be greater than 0 and at most high - low, 60."),
        ("low: 4", "low: 4.5", "'model.length' is a whole number (int), and so must low, high and step be."),
        ("model.lr:", "lr:", "dimension 'lr' is no option; did you mean 'model.lr'?"),
        ("model.lr:", "model.lrr:", "model.lrr=1e-05 data.batch_size=16: option --model.lrr does not exist; did"),
        ("data.batch_size: [", "batch_size: [", "dimension 'batch_size' is no option, and its values give none"),
        (LENGTH, "when: {methods: PTuningV2}", "when names 'methods', which is no dimension above it; did you mean"),
        (LENGTH, "when: {method: PTuning}", "when: 'PTuning' is no method of the space, did you mean 'PTuningV2'?"),
        (LENGTH, "when: {model.lr: 0.1}", "when names 'model.lr', which is a range"),
        (LENGTH, "when: PTuningV2", "when must be a mapping of a dimension to values"),
        (
            LENGTH,
            "step: 4",
            "method=FineTuning model.lr=1e-05 model.length=4 data.batch_size=16: option --model.length",
        ),
        ("{weight_decay: 0.01}", "{lr: 0.01}", "model.lr is given by dimension 'model.lr' and by 'method'"),
        ("{weight_decay: 0.01}", "{weight_decays: 0.01}", "option --model.weight_decays does not exist"),
        ("task: rte", "task: rtee", "no task 'rtee', did you mean 'rte'?"),
        ("[16, 32]", "[16, many]", "option --data.batch_size 'many': must be a whole number"),
        ("[1, 2]", "[1, 1]", "seeds [1, 1] has a seed twice"),
        ("[1, 2]", "[1, two]", "seeds: 'two' must be a whole number from 0"),
        ("[1, 2]", "3", "seeds must be a list of whole numbers"),
        ("task: rte", "task: rte\n  seed: 4", "seeds are those that a trial averages"),
        ("seeds:", "metric: f1\nseeds:", "metric 'f1' is none of task 'rte'; choose one of: accuracy, loss."),
        ("seeds:", "direction: up\nseeds:", "direction 'up': choose one of: maximize, minimize."),
        ("seeds:", "sampler: bayes\nseeds:", "sampler 'bayes': choose one of: grid, random, tpe."),
        ("seeds:", "sampler_seed: x\nseeds:", "sampler_seed: 'x' must be a whole number from 0"),
        ("seeds:", "pruner: hyperband\nseeds:", "pruner 'hyperband': choose one of: asha, median, none."),
        ("seeds:", "sampler: grid\nseeds:", "dimension 'model.lr': a grid needs a list of values, or a range with a"),
        ("seeds:", "runs: 3\nseeds:", "runs must be a word, not 3."),
        (FILE, "options: {task: rte}\n", "space must name at least one dimension"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_place(space, before, after, sentence):
    with pytest.raises(InputError) as error:
        space(FILE.replace(before, after))
    assert sentence in str(error.value)
    assert "space.yaml" in str(error.value)


def test_loss_is_minimized(space):
    assert space(FILE + "metric: loss\n").direction == "minimize"
    assert space(FILE).direction == "maximize"


def test_the_digest_is_that_of_what_decides_a_value(space):
    base = space().digest
    assert base == space(FILE + "sampler: random\npruner: asha\nruns: x\n").digest
    for change in (("0.01", "0.02"), ("[16, 32]", "[16]"), ("seeds: [1, 2]", "seeds: [1]"), ("rte", "wic")):
        assert space(FILE.replace(*change)).digest != base


def draw(each, by: random.Random):
    """Some value of a dimension."""
    return by.choice(each.values) if each.values else by.uniform(*each.ends)


def test_points_that_are_drawn_are_command_lines(space):
    found, by = space(), random.Random(0)
    for number in range(20):
        found.cells(number, found.point(lambda each: draw(each, by)))


SHIPPED = sorted(runs.REPOSITORY.glob("experiments/spaces/*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_points_of_a_shipped_space_are_command_lines(path):
    found, by = read(path), random.Random(0)
    for number in range(20):
        found.cells(number, found.point(lambda each: draw(each, by)))
    assert f"#   python -m ptune.sweep experiments/spaces/{path.name} " in path.read_text()


def test_each_method_that_trains_has_a_space():
    methods = {str(read(path).options["method"]) for path in SHIPPED}
    assert methods == catalog.classes("model").keys() - {"ManualPrompt"}
    assert "p_tuning_v2_authors" in {path.stem for path in SHIPPED}


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.parametrize("path", [path for path in SHIPPED if "authors" not in path.stem], ids=lambda path: path.stem)
def test_a_trial_of_a_shipped_space_trains(path, tmp_path):
    found, by = (
        read(path, options={"model.backbone": runs.bert(positions=128, layers=3), "trainer.max_epochs": "1"}),
        random.Random(0),
    )
    for number in range(3):
        (run,) = found.cells(number, found.point(lambda each: draw(each, by)))
        few = ["--trainer.limit_train_batches", 2, "--trainer.limit_val_batches", 1, "--trainer.limit_test_batches", 1]
        code, _, err = runs.call([*run.words, *runs.QUIET, *few, "--run_dir", tmp_path / str(number)])
        assert code == 0, err
