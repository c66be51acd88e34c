"""A grid's file becomes command lines; a mistake in it is one sentence."""

import json
import shlex
from pathlib import Path

import pytest
import runs

from ptune.errors import InputError
from ptune.research.axes import read
from ptune.research.cells import cell, is_done

FILE = """
options:
  data.batch_size: 4
axes:
  method:
    FineTuning: {lr: 2.0e-5}
    PTuningV2: {length: 4, mlp: 8, layers: [0, 1]}
  task: [rte, toy/tagging]
  seed: [1, 2]
exclude:
  - {method: FineTuning, task: [rte], seed: 2}
"""


@pytest.fixture
def cells(tmp_path):
    def cells(text=FILE, **options):
        file = tmp_path / "grid.yaml"
        file.write_text(text)
        return read(file, **options)

    return cells


def test_cells_are_the_combinations_but_for_the_excluded_ones(cells):
    names = [cell.name for cell in cells()]
    methods, tasks = ("FineTuning", "PTuningV2"), ("rte", "toy/tagging")
    every = [f"{method} {task} {seed}" for method in methods for task in tasks for seed in (1, 2)]
    assert names == [name for name in every if name != "FineTuning rte 2"]


def test_cells_of_some_values_are_the_same_cells(cells):
    every = {cell.name: cell for cell in cells()}
    some = cells(only=[("task", "rte"), ("seed", "1"), ("seed", "2"), ("method", "PTuningV2")])
    assert [cell.name for cell in some] == ["PTuningV2 rte 1", "PTuningV2 rte 2"]
    assert [(cell.words, cell.run_dir) for cell in some] == [
        (every[cell.name].words, every[cell.name].run_dir) for cell in some
    ]


def test_a_value_may_be_written_as_in_the_file(cells):
    axes = "options: {model: PTuningV2, task: rte}\naxes: {model.lr: [1e-3, 1e-5], model.gate: [true, false]}\n"
    (found,) = cells(axes, only=[("model.lr", "1e-5"), ("model.gate", "True")])
    assert found.name == "1.0e-05 true"


@pytest.mark.parametrize(
    ("only", "sentence"),
    [
        (("methods", "PTuningV2"), r"grid.yaml: --only names 'methods', which is no axis, did you mean 'method'\?"),
        (("method", "PTuningV3"), r"--only: 'PTuningV3' is no method of the grid, did you mean 'PTuningV2'\?"),
    ],
)
def test_values_that_the_grid_has_not_are_refused(cells, only, sentence):
    with pytest.raises(InputError, match=sentence):
        cells(only=[only])


def test_a_cell_is_a_command_line_with_the_options_of_its_values(cells):
    cell = next(cell for cell in cells() if cell.name == "PTuningV2 toy/tagging 1")
    pairs = dict(zip(cell.words[::2], cell.words[1::2], strict=True))
    assert pairs == {
        "--model": "PTuningV2",
        "--data": "Tagging",
        "--data.batch_size": "4",
        "--model.length": "4",
        "--model.mlp": "8",
        "--model.layers": "[0, 1]",
        "--data.task": "toy/tagging",
        "--seed_everything": "1",
    }
    assert list(pairs)[:2] == ["--model", "--data"], "options of a class stand behind it"
    assert cell.run_dir == Path("runs/grid/PTuningV2/toy-tagging/seed=1")
    assert cell.line.startswith("ptune fit --model PTuningV2 --data Tagging ")
    assert "'[0, 1]'" in cell.line


def test_the_command_of_a_cell_can_be_pasted_into_a_shell(cells):
    (found,) = cells(
        'options: {data.text: "it\'s {a}"}\naxes: {method: [PTuningV2], task: [rte]}\n'.replace(
            "data.text", "data.template"
        )
    )
    assert tuple(shlex.split(found.line)) == ("ptune", "fit", *found.words, "--run_dir", str(found.run_dir))


def test_options_of_ptune_itself_are_axes(cells):
    found = cells("options: {data.task: rte}\naxes:\n  model: [PTuningV2, BitFit]\n  seed_everything: [3, 4]\n")
    assert [(each.words[1], each.words[-1]) for each in found] == [
        (method, seed) for method in ("PTuningV2", "BitFit") for seed in ("3", "4")
    ]
    assert all(each.words[-2] == "--seed_everything" for each in found)


def test_a_cell_is_made_from_options_alone(tmp_path):
    found = cell({"trial": "7"}, [{"method": "PTuningV2", "task": "rte"}, {"lr": 0.01, "seed": 3}], tmp_path)
    assert found.words == (
        *("--model", "PTuningV2", "--data", "Classification", "--data.task", "rte"),
        *("--model.lr", "0.01", "--seed_everything", "3"),
    )
    assert (found.name, found.run_dir, found.result) == ("7", tmp_path, None)
    with pytest.raises(InputError, match=r"option 'run_dir' cannot be set here"):
        cell({}, [{"method": "PTuningV2", "task": "rte", "run_dir": "x"}], tmp_path)


def test_a_method_that_trains_nothing_is_evaluated(tmp_path):
    recipe = tmp_path / "manual.yaml"
    recipe.write_text("model: {class_path: ManualPrompt}\n")
    direct = [{"config": str(recipe), "task": "rte"}, {"data.template": "task"}]
    assert cell({}, direct, tmp_path).line.startswith("ptune evaluate --config ")
    assert cell({}, direct, tmp_path).result_file == tmp_path / "evaluation.json"
    assert cell({}, [*direct, {"model": "LinearProbe"}], tmp_path).command == "fit", "the last method counts"


@pytest.mark.parametrize("kept", ["cell.json", "result.json"])
def test_a_torn_file_of_a_cell_is_named_in_one_sentence(tmp_path, kept):
    found = cell({"trial": "7"}, [{"method": "PTuningV2", "task": "rte"}], tmp_path)
    (tmp_path / "cell.json").write_text(json.dumps({"digest": found.digest, "words": found.words}))
    (tmp_path / kept).write_text('{"digest": "12')
    with pytest.raises(InputError, match=f"{kept} is damaged .* remove its directory"):
        is_done(found) and found.result


def test_an_option_is_an_axis_and_so_is_a_name_whose_values_give_options(cells):
    text = (
        "options: {method: x}\naxes:\n  model.lr: [1.0e-3, 2.0e-3]\n  size: {small: {length: 4}, large: {length: 64}}\n"
    )
    found = cells(text.replace("options: {method: x}", "options: {model: PTuningV2, data.task: rte}"))
    assert [cell.run_dir.relative_to("runs/grid").as_posix() for cell in found] == [
        f"lr={rate}/size={size}" for rate in ("0.001", "0.002") for size in ("small", "large")
    ]
    assert found[1].words[-2:] == ("--model.length", "64")
    assert "--model.lr" in found[1].words
    assert "--size" not in found[1].words


def test_options_beside_those_of_the_file_are_of_all_cells_and_no_axis(cells):
    found = cells(given={"data.batch_size": "8", "backbone": "x"})
    pairs = [dict(zip(cell.words[::2], cell.words[1::2], strict=True)) for cell in found]
    assert {(each["--data.batch_size"], each["--model.backbone"]) for each in pairs} == {("8", "x")}
    for name in ("seed", "seed_everything"):
        with pytest.raises(InputError, match=r"--set seed_everything: seed is an axis of .*grid\.yaml; leave it out"):
            cells(given={name: "3"})


def test_a_configuration_may_lie_in_the_home_folder(cells, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "recipe.yaml").write_text("model: {class_path: PTuningV2}\n")
    (found,) = cells("axes:\n  recipe: {mine: {config: ~/recipe.yaml}}\n  task: [rte]\n")
    assert found.words[:2] == ("--config", "~/recipe.yaml")


def test_the_digest_is_that_of_the_options_and_of_the_configurations(cells, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {class_path: PTuningV2}\n")
    text = f"axes:\n  method: {{PTuningV2: {{config: {recipe}}}}}\n  task: [rte]\n"
    (one,), (again,) = cells(text), cells(text)
    recipe.write_text("model: {class_path: PTuningV2, init_args: {length: 7}}\n")
    (other,) = cells(text)
    assert one.digest == again.digest != other.digest
    assert one.words[:2] == ("--config", str(recipe))
    assert one.run_dir == other.run_dir
    assert cells(text, place=tmp_path / "x")[0].run_dir == tmp_path / "x" / "PTuningV2" / "rte"


def test_long_values_have_short_folders_of_their_own(cells):
    templates = [f"{'好的 ' * 100}{end} [MASK]" for end in ("a", "b")]
    found = cells(f"options: {{task: sst2}}\naxes:\n  method: [PTuningV2]\n  data.template: {templates}\n")
    names = {cell.run_dir.name for cell in found}
    assert len(names) == 2
    assert all(len(name.encode()) <= 120 and name.startswith("template=好的-") for name in names)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("axes:", "axis:"), "'axis' is no part of a grid, did you mean 'axes'?"),
        (("seed: [1, 2]", "seed: 3"), "axis 'seed' must have a list of one value or more"),
        (("{lr: 2.0e-5}", "2.0e-5"), "the options of 'FineTuning' must be a mapping"),
        (("{lr: 2.0e-5}", "{lrr: 2.0e-5}"), "cell FineTuning rte 1: option --model.lrr does not exist; did you mean"),
        (("PTuningV2:", "PTuningV3:"), "cell PTuningV3 rte 1: "),
        (("[rte, toy/tagging]", "[rte, toy/taging]"), "toy/taging"),
        (("- {method", "- {methods"), "exclude names 'methods', which is no axis, did you mean 'method'?"),
        (("seed: 2}", "seed: 4}"), "exclude: '4' is no seed of the grid"),
        (
            ("seed: [1, 2]", "seed: [1, 2]\n  lr: [1.0e-3]"),
            "axis 'lr' is no option, and its values give none: did you mean 'model.lr'?",
        ),
        (
            ("seed: [1, 2]", "seed: [1, 2]\n  sizes: {a: {}, b: {}}"),
            "axis 'sizes' is no option, and its values give none",
        ),
        (
            ("axes:", "axes:\n  model.lr: [1e-3, 1e-2]"),
            "model.lr is given by axis 'model.lr' and by 'FineTuning' of axis 'method'; remove one.",
        ),
        (("PTuningV2:", "'{PTuningV2: {lr: 0.1}}':"), "option --model '{PTuningV2: {lr: 0.1}}': choose one of: APT"),
        (
            ("[rte, toy/tagging]", "{rte: {}, own: {task: {text: [a]}}}"),
            "cell FineTuning own 1: option --data is missing before",
        ),
        (("data.batch_size: 4", "1: x"), "cell FineTuning rte 1: option --model.1 does not exist"),
        (("data.batch_size: 4", "run_dir: x"), "option 'run_dir' cannot be set here"),
        (("seed: [1, 2]", "seed: [1, 2]\n  data.template: [a b, a/b]"), "would share the directory"),
        (("exclude:", "runs: 3\nexclude:"), "runs must be the path of a directory, not 3"),
        (
            ("- {method: FineTuning, task: [rte], seed: 2}", "  {method: FineTuning}"),
            "exclude must be a list of mappings",
        ),
        (
            ("- {method: FineTuning, task: [rte], seed: 2}", "  3"),
            "exclude must be a list of mappings of axes to values, not 3",
        ),
        (("task: [rte], seed: 2", "task: [rte, toy/tagging]"), None),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_place(cells, change, sentence):
    if sentence is None:
        assert len(cells(FILE.replace(*change))) == 4
        return
    with pytest.raises(InputError) as error:
        cells(FILE.replace(*change))
    assert sentence in str(error.value)
    assert "grid.yaml" in str(error.value)


@pytest.mark.parametrize("path", sorted(runs.REPOSITORY.glob("experiments/grids/*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_grid_has_cells_and_names_its_command(path):
    assert len(read(path)) > 1
    assert f"python -m ptune.grid experiments/grids/{path.name}" in path.read_text()


def test_a_file_that_is_no_grid_is_named_as_it_was_given(tmp_path):
    with pytest.raises(
        InputError, match=r"^no\.yaml: does not exist; .* such as experiments/grids/quickstart\.yaml\.$"
    ):
        read(Path("no.yaml"))
    (tmp_path / "grid.yaml").write_text("")
    with pytest.raises(InputError, match=r"grid\.yaml: holds no names with values, as experiments/grids/quick"):
        read(tmp_path / "grid.yaml")


def test_a_grid_without_cells_is_refused(cells):
    with pytest.raises(InputError, match="no cell is left; remove a line of exclude"):
        cells("axes:\n  seed: [1]\nexclude: [{seed: 1}]\n")
    with pytest.raises(InputError, match="or name other values with --only"):
        cells(only=[("method", "FineTuning"), ("task", "rte"), ("seed", "2")])
    with pytest.raises(InputError, match="axes must name at least one axis"):
        cells("options: {model: PTuningV2}\n")
