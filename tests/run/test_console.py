"""`ptune COMMAND`: every command by its name."""

import shutil
import subprocess
import sys

import pytest
import runs

import ptune.__main__ as console
from ptune.errors import near_path
from ptune.run import catalog


def test_every_module_with_a_main_is_a_command_with_an_explanation():
    found = console.commands()
    assert {"fit", "evaluate", "inspect", "export", "backbones", "tasks", "methods", "completion"} <= found.keys()
    assert not {"prompts", "errors", "run"} & found.keys()
    assert all(what.count(" ") > 2 for what in found.values()), found


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_without_a_command_it_lists_them(words, capsys):
    assert console.main(words) == (0 if words else 2)
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in console.commands())


@pytest.mark.parametrize("name", console.commands())
def test_help_of_a_command_is_printed_and_ends_well(name, capsys):
    try:
        code = console.main([name, "--help"])
    except SystemExit as end:  # argparse's way
        code = end.code
    assert code == 0
    assert len(capsys.readouterr().out.split()) > 15


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["fitt"], "no command 'fitt', did you mean 'fit'?"),
        (["methods", "lora"], "no method 'lora', did you mean 'LoRA'?"),
        (["tasks", "rtee"], "did you mean 'rte'?"),
        (["inspect", "nowhere"], "nowhere: does not exist"),
    ],
)
def test_a_wrong_name_is_one_sentence(words, sentence, capsys):
    assert console.main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "{}"],
        ["export", "{}", "out"],
        ["inspect", "{}", "--no-picture"],
        ["predict", "{}", "--input", "-"],
        ["predict", "here", "--input", "{}.yaml"],
        ["report", "{}"],
        ["grid", "{}.yaml"],
        ["sweep", "{}.yaml"],
        ["fit", "--config", "{}.yaml"],
    ],
    ids=" ".join,
)
def test_what_does_not_exist_is_said_not_to_with_what_is_near(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here.yaml").touch()
    for given, advice in (("heer", "did you mean 'here{}'?"), ("zzz", "give "), ("zzz/here", "give ")):
        assert console.main([word.format(given) for word in words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        if line.startswith("error: zzz/here: there is no such folder here, and the hub"):  # it may be a hub id
            continue
        path = next(word for word in words if "{}" in word).format(given)
        assert f"{path}: does not exist; {advice.format(path.removeprefix(given))}" in line


def test_the_nearest_path_may_differ_in_any_part(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    assert near_path(tmp_path / "rums" / "a") == f"did you mean '{tmp_path}/runs/a'?"
    assert near_path(tmp_path / "rums" / "b") == f"did you mean '{tmp_path}/runs'?"
    assert near_path(tmp_path / "RUNS") == f"did you mean '{tmp_path}/runs'?"
    assert near_path(tmp_path / "x" / "y") == near_path("a" * 5000) == near_path("\0/x") == ""


def test_methods_lists_them_all_and_the_options_of_one(capsys):
    assert console.main(["methods"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in f"\n{out}" for name in catalog.classes("model"))
    assert console.main(["methods", "PTuningV2"]) == 0
    assert "--model.length " in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_options_methods_and_tasks(shell, capsys):
    assert console.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("fit", "--model.length", "--trainer.max_epochs", "PTuningV2", "Tagging", "sst2"):
        assert word in script, word


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["ptune", "fi"], "fit"),
        (["ptune", "fit", "--model.le"], "--model.length"),
        (["ptune", "fit", "--model", "PTun"], "PTuning PTuningV2"),
        (["ptune", "fit", "--data.task", "sst"], "sst2"),
    ],
)
def test_bash_completes_a_word(words, completed, capsys, tmp_path):
    console.main(["completion", "bash"])
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    line = f"source {tmp_path}/completion.sh; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
    line += "_shtab_ptune 2> /dev/null; echo ${COMPREPLY[*]}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=20)
    assert done.stdout.strip() == completed


@pytest.mark.slow
@pytest.mark.parametrize("command", ["tasks", "methods"])
def test_a_closed_pipe_is_no_traceback(command):
    line = f"{sys.executable} -m ptune {command} | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, cwd=runs.REPOSITORY)
    assert "Traceback" not in done.stderr
    assert done.stdout.count("\n") == 1
