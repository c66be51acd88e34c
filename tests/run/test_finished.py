"""A run directory is data: whoever reads one executes nothing of it."""

import io
import json
import re
import shutil
import sys
from importlib import import_module

import pytest
import runs
import yaml

from ptune.errors import InputError
from ptune.run import directory
from ptune.run.finished import read


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """A run directory whose configuration is changed, with a module beside it that leaves a trace when imported."""
    (tmp_path / "evil.py").write_text("open('trace', 'w').close()\nfrom ptune import PTuningV2 as C\n")
    (tmp_path / "evil.yaml").write_text("class_path: evil.C\n")
    (tmp_path / "{evil.yaml").write_text("class_path: evil.C\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)

    def write(change):
        run_dir = tmp_path / "run"
        run_dir.mkdir()
        (run_dir / "prompts.safetensors").write_bytes((runs.finished() / "prompts.safetensors").read_bytes())
        config = yaml.safe_load((runs.finished() / "config.yaml").read_text())
        change(config)
        (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
        return run_dir

    return write


def put(*keys, value):
    """A change that sets one entry of a configuration."""

    def change(config):
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("model", "class_path", value="evil.C"), "model names 'evil.C', no class of ptune"),
        (put("model", "class_path", value="evil.PTuningV2"), "model names 'evil.PTuningV2', no class of ptune"),
        (put("data", "class_path", value="run.evil.C"), "data names 'run.evil.C', no class of ptune"),
        (put("data", "init_args", "task", value={"class_path": "evil.C"}), "data names 'evil.C', no class of ptune"),
        (put("data", "init_args", "task", value='{"cl\\u0061ss_path": "evil.C"}'), "data names 'evil.C', no class of"),
        (put("data", "init_args", "task", value="evil.yaml"), "no task 'evil.yaml'"),
        (put("data", "init_args", "task", value="{evil.yaml"), "no task '{evil.yaml'"),
        (put("model", "init_args", "lr", value={"a": [{"class_path": "evil.C"}]}), "model names 'evil.C', no class of"),
        (put("trainer", "precision", value='{"class_path": "evil.C"}'), "takes no class, but 'evil.C' is given as one"),
        (put("data", "init_args", "task", value={"prepare": "evil.C", "text": ["a"]}), "prepare"),
        (put("model", "init_args", "backbone", value="package:evil.x/y"), "evil.x"),
        (put("model", value=None), "model names no class"),
    ],
)
def test_nothing_that_a_configuration_names_is_imported(changed, tmp_path, change, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        read(changed(change))
    for command, words in (("evaluate", []), ("inspect", ["--no-picture"]), ("export", ["adapter"])):
        code, _, err = runs.call(["run", *words], import_module(f"ptune.{command}").main)
        assert (code, err.count("\n"), sentence in err) == (2, 1, True), err
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("command", ["evaluate", "inspect", "export"])
def test_a_class_of_the_users_own_is_refused_with_the_reason_and_trust_imports_it(command, changed, tmp_path):
    run_dir = changed(put("model", "class_path", value="evil.C"))
    main = import_module(f"ptune.{command}").main
    words = [str(run_dir), *{"inspect": ["--no-picture"], "export": ["adapter"]}.get(command, [])]
    code, _, err = runs.call(words, main)
    assert code == 2
    assert err == (
        f"error: {run_dir}/config.yaml: model names 'evil.C', no class of ptune, and a class is code, which reading a "
        "run directory does not execute; if you trust its author, add --trust.\n"
    )
    assert not (tmp_path / "trace").exists()
    runs.call([*words, "--trust"], main)
    assert (tmp_path / "trace").exists()


def test_an_option_that_is_none_is_named_with_the_file_that_has_it(changed):
    run_dir = changed(put("model", "init_args", "older", value=1))
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(run_dir))}/config.yaml: option --model.older does not exist"
    ):
        directory.words(run_dir, [])
    with pytest.raises(InputError, match=r"^option --model.oldest does not exist"):
        directory.words(runs.finished(), ["--model.oldest", "1"])


def test_loggers_callbacks_and_other_sections_are_not_read(changed, tmp_path):
    def change(config):
        config["trainer"] = {"callbacks": [{"class_path": "evil.C"}], "logger": {"class_path": "evil.C"}}
        config["wandb"] = {"class_path": "evil.C"}
        config["model"]["dict_kwargs"] = {"class_path": "evil.C"}

    model, _ = read(changed(change))
    assert type(model).__name__ == "PTuningV2"
    assert not (tmp_path / "trace").exists()


def test_an_internal_error_is_raised_as_it_is_and_ends(changed, monkeypatch):
    from ptune.run import cli

    def broken(*_, **__):
        raise ValueError("internal")

    monkeypatch.setattr(cli.CLI, "of", broken)
    with pytest.raises(ValueError, match="internal"):
        read(changed(lambda config: None))


class Answering(io.StringIO):
    """A terminal at which somebody would say yes to everything; whoever reads from it is told of."""

    def isatty(self):
        return True

    def readline(self, *_):
        pytest.fail("standard input is read")


@pytest.mark.parametrize("stdin", [None, Answering("y\ny\ny\n")], ids=["closed", "terminal"])
@pytest.mark.parametrize(
    ("command", "kind"),
    [("export", "bert"), *((name, "unknown") for name in ("fit", "evaluate", "inspect", "export", "backbones"))],
)
def test_a_backbone_that_brings_code_is_not_executed_and_asks_nothing(
    command, kind, stdin, changed, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("standard input is read"))
    shutil.copytree(runs.bert(), tmp_path / "bert")
    names = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoModelForSequenceClassification", "AutoModelForMaskedLM")
    for file in ("config.json", "tokenizer_config.json"):
        config = json.loads((tmp_path / "bert" / file).read_text())
        config["auto_map"] = {name: ["code.C", None] if name == "AutoTokenizer" else "code.C" for name in names}
        config |= {"model_type": "unknown"} if kind == "unknown" and file == "config.json" else {}
        (tmp_path / "bert" / file).write_text(json.dumps(config))
    (tmp_path / "bert" / "code.py").write_text("open('trace', 'w').close()\n")
    run_dir = changed(put("model", "init_args", "backbone", value="./bert"))
    words = {"fit": runs.line("x", model__backbone="./bert"), "backbones": ["./bert"], "export": [run_dir, "adapter"]}
    code, _, err = runs.call(words.get(command, [run_dir]), import_module(f"ptune.{command}").main)
    assert not (tmp_path / "trace").exists()
    if kind == "unknown" and command != "backbones":
        assert (code, err.count("\n") - err.count("Seed set to")) == (2, 1), err
        assert err.splitlines()[-1].startswith("error: backbone './bert': its config.json cannot be read (")
