"""The words of a command line: what is known before heavy imports, and whose options are whose."""

import subprocess
import sys
import time

import pytest
import runs
import yaml

from ptune.errors import InputError
from ptune.run import catalog
from ptune.run.adapted import SHARED
from ptune.run.arguments import prepare

PREFIX = {"class_path": "PTuningV2", "init_args": {"backbone": "my/bert", "pool": "mean", "length": 20, "lr": 0.03}}


@pytest.fixture
def config(tmp_path):
    """Writes a YAML file: config("a", model=...) -> its path."""

    def write(name, **sections):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(sections))
        return str(file)

    return write


def sections(words):
    """The configurations among the words, read, those before the last one first."""
    words = [word.removeprefix("--config=") for word in words]
    return [yaml.safe_load(word) for word in words if "\n" in word]


# ---- a method's options stay with the method


def test_another_method_on_the_command_line_gets_only_what_all_methods_share(config, capsys):
    file = config("prefix", model=PREFIX, trainer={"max_epochs": 3})
    words = prepare(["--config", file, "--model", "FineTuning"])
    ((cut),) = sections(words)
    assert cut["model"]["init_args"] == {"backbone": "my/bert", "pool": "mean"}
    assert cut["trainer"] == {"max_epochs": 3}
    assert capsys.readouterr().err == (
        f"note: left out for FineTuning, because {file} sets it for PTuningV2: length 20, lr 0.03.\n"
    )


def test_so_does_a_method_of_a_second_file(config):
    files = [config("a", model=PREFIX), config("b", model={"class_path": "LoRA", "init_args": {"rank": 4}})]
    words = prepare([f"--config={file}" for file in files])
    assert sections(words)[0]["model"]["init_args"] == {"backbone": "my/bert", "pool": "mean"}
    assert words[1] == f"--config={files[1]}"


@pytest.mark.parametrize("name", ["PTuningV2", "ptune.PTuningV2", "ptune.methods.p_tuning_v2.PTuningV2"])
def test_the_same_method_by_any_of_its_names_keeps_its_options(config, name, capsys):
    words = ["--config", config("a", model=PREFIX), "--model", name, "--model.lr", "1"]
    assert prepare(words) == words
    assert capsys.readouterr().err == ""


def test_an_option_behind_the_class_is_the_class_s_and_one_before_it_is_refused(config):
    file = config("a", model=PREFIX)
    assert prepare(["--config", file, "--model", "FineTuning", "--model.lr", "1"])[-1] == "1"
    with pytest.raises(InputError, match=r"--model.lr stands before --model FineTuning, and is read as PTuningV2's"):
        prepare(["--config", file, "--model.lr", "1", "--model", "FineTuning"])
    assert prepare(["--config", file, "--model.backbone", "other", "--model", "FineTuning"])[3] == "other"


@pytest.mark.parametrize("name", catalog.classes("model"))
def test_what_methods_share_does_not_depend_on_the_method(name):
    """The shared options have one default in every method that has them; rates and schedules are not among them."""
    options = catalog.classes("model")[name].options
    base = catalog.entry("ptune.tuning.tuner", "PromptTuner").options
    assert {option: options[option].default for option in SHARED if option in options} == {
        option: base[option].default for option in SHARED if option in options
    }
    assert not {"lr", "head_lr", "schedule", "warmup", "weight_decay", "backbone_dropout"} & {*SHARED}


def test_fine_tuning_from_the_yaml_of_a_prefix_trains_at_its_own_rate(tmp_path):
    words = ["--config", "experiments/p_tuning_v2/sst2.yaml", "--model", "FineTuning", "--model.backbone", runs.bert()]
    words += ["--data.task", "toy/single", "--data.path", runs.data("toy/single"), "--run_dir", tmp_path / "run"]
    model = runs.built([*words, *runs.QUIET]).model
    assert model.rates == {"prompt": 2e-5, "head": 2e-5, "backbone": 2e-5}
    assert model.hparams["warmup"] == 0.0


# ---- what is read from the source is what the classes have


@pytest.mark.parametrize("group", catalog.GROUPS)
def test_the_catalogue_has_the_arguments_and_defaults_that_the_classes_have(group):
    import inspect
    from importlib import import_module

    for entry in catalog.classes(group).values():
        cls = getattr(import_module(entry.module), entry.name)
        own = {}
        for base in reversed([c for c in cls.__mro__ if c.__module__.startswith("ptune.") and "__init__" in vars(c)]):
            own |= inspect.signature(base.__init__).parameters
        own = {name: value for name, value in own.items() if name in entry.options}
        assert entry.options.keys() - {"args"} == own.keys()
        for name, option in entry.options.items():
            default = own[name].default
            if default is inspect.Parameter.empty:
                assert option.default is None, name
            else:
                written = str(default).lower() if isinstance(default, bool) else "null" if default is None else default
                assert option.default == str(written), name
            assert option.help or name in ("task", "backbone", "slots"), f"{entry.name}.{name} is not explained"


def test_closed_choices_are_found_through_aliases_and_other_modules():
    options = catalog.classes("model")["PTuningV2"].options
    assert options["form"].choices == ("table", "hidden")
    assert options["schedule"].choices == ("linear", "cosine", "constant", "exponential")
    assert options["layers"].choices == ()
    trainer = catalog.entry("lightning.pytorch.trainer.trainer", "Trainer").options
    assert "bf16-mixed" in trainer["precision"].choices
    assert trainer["accelerator"].choices == trainer["max_epochs"].choices == ()


# ---- quick answers


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--model ptuningv2", "option --model 'ptuningv2': did you mean 'PTuningV2'?"),
        ("--model PTuningV2 --model.lenght 3", "option --model.lenght does not exist; did you mean --model.length?"),
        (
            "--model PTuningV2 --model.decoding X",
            "option --model.decoding does not exist; did you mean --data.decoding?",
        ),
        ("--model PTuningV2 --lr 1", "option --lr does not exist; did you mean --model.lr?"),
        ("--trainer.precision bf16-mix", "option --trainer.precision 'bf16-mix': did you mean 'bf16-mixed'?"),
        (
            "--seed_everything true",
            "option --seed_everything 'true': must be a whole number (int) from 0 to 4294967295.",
        ),
        ("--data Classification --data.task rtee", "no task 'rtee', did you mean 'rte'?"),
        ("--model PTuningV2 --model.length 1:30", "option --model.length '1:30': must be a whole number (int)."),
        ("--model PTuningV2 --model.length 1_000", "option --model.length '1_000': must be a whole number (int)."),
        ("--wandb false", "option --wandb 'false': has options of its own, such as --wandb.enabled false."),
        (
            "--data Classification --data.train_rows null",
            "option --data.train_rows 'null': must be a whole number (int); leave it out for its default, 0.",
        ),
        ("--model PTuningV2 --model.checkpointing yes", "option --model.checkpointing 'yes': must be true or false."),
        ("--wandb.enabled yes", "option --wandb.enabled 'yes': must be true or false or auto."),
        ("--trainer.max_epochs 1.5", "option --trainer.max_epochs '1.5': must be a whole number (int)."),
        (
            "--model PTuningV2 --model.lr {class_path:evil.C}",
            "option --model.lr '{class_path:evil.C}': must be a number (float).",
        ),
        (
            "--data Classification --data.task {'class_path':'evil.C'}",
            "option --data.task takes no class, but 'evil.C' is given as one; give a plain value.",
        ),
        (
            "--data Classification --data.task.class_path evil.C",
            "option --data.task takes no class, but 'evil.C' is given as one; give a plain value.",
        ),
        ("--run_dir=", "option --run_dir '': is empty; give a path, or leave the option out."),
        (
            "--data Classification --data.path ~nobody.x/y",
            "option --data.path '~nobody.x/y': there is no such home folder; write the whole path.",
        ),
        ("stray", "'stray' belongs to no option; an option is written --name value."),
        ("-x 3", "option -x does not exist; options are written with two dashes, such as --run_dir."),
        ("--config", "--config is given no file; give a YAML file, such as a run's config.yaml."),
    ],
)
def test_a_typo_is_answered_before_anything_heavy_is_imported(words, sentence):
    code = f"""
import sys
from ptune.fit import main
code = 0
try:
    main({words.split()!r})
except SystemExit as end:
    code = end.code
heavy = [name for name in ("torch", "lightning", "transformers", "jsonargparse", "datasets") if name in sys.modules]
sys.exit(f"code {{code}}, imported {{heavy}}" if code != 2 or heavy else 0)
"""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=runs.REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"error: {sentence}\n"
    assert time.monotonic() - start < 30


def test_options_of_a_class_of_the_users_own_are_left_to_the_parser():
    words = ["--model", "my.module.Method", "--model.anything", "3", "--data", "Classification", "--data.path", "x"]
    assert prepare(words) == words
    with pytest.raises(InputError, match=r"--data.pth does not exist; did you mean --data.path"):
        prepare([*words, "--data.pth", "x"])


@pytest.mark.parametrize("command", ["fit", "evaluate"])
def test_a_command_without_words_shows_three_examples(command, capsys):
    from importlib import import_module

    with pytest.raises(SystemExit, match=r"^2$"):
        import_module(f"ptune.{command}").main([])
    err = capsys.readouterr().err
    assert err.count(f"\n  ptune {command} ") == 3
    assert "Traceback" not in err


# ---- configuration files


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed_everything: 1\nseed_everything: 2\n", "line 1: the key 'seed_everything' occurs twice"),
        ("a: &a [*a]\n", "more than 100 levels when aliases are expanded"),
        ("a: " + "[" * 5000, "not YAML"),
        (f"a: {'9' * 5000}\n", "not YAML"),
        ("a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{c}: &{c} [{','.join([f'*{b}'] * 10)}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)
        ), "more than 100,000 values when aliases are expanded"),
        ("trainer: null\n", "option --trainer None: must be a mapping of options"),
        ("trainer: [1]\n", "option --trainer [1]: must be a mapping of options"),
        ("wandb: 7\n", "option --wandb 7: must be a mapping of options"),
        ("model: {class_path: PTuningV2, init_args: [1]}\n", "--model.init_args [1]: must be a mapping of options"),
        ("model: [1]\n", "option --model [1]: is neither a class nor a class with its options"),
        ("data: {class_path: Classification, init_args: {task: {lables: [a]}}}\n", "--data.task.lables does not exist"),
        ("model: {class_path: PTuningV2, lr: 0.1}\n",
         "--model stands in a file as model: {class_path: NAME, init_args: {lr: 0.1}}."),
        ("model: PTuningV2\nmodel.gate: true\n",
         "--model.gate stands in a file as model: {class_path: NAME, init_args: {gate: true}}."),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path, text, sentence):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        prepare(["--config", str(tmp_path / "c.yaml")])
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("no", "no"), ("on", "on"), ("1:30", "1:30"), ("010", 10), ("1_000", "1_000"),
        ("0x10", "0x10"), ("2026-01-01", "2026-01-01"), ("[no, yes]", ["no", "yes"]), ("{sentence}", "{sentence}"),
        ("true", True), ("", None),
    ],
)  # fmt: skip
def test_words_mean_what_they_say(text, value):
    from ptune.run.configs import load

    assert load(text) == value


@pytest.mark.parametrize(
    "text", ["08", "1e3", "no", "~", "null", "1:30", "0x1f", "<<", "true", "1_000", "", "é", "a: b"]
)
def test_a_text_that_is_written_is_read_as_the_same_text(text):
    from ptune.run.configs import dump, load

    for value in ([text], {text: text}, {"labels": [text, 8, 1e3, None, True]}):
        assert load(dump(value)) == value
        assert load(dump(value, default_flow_style=True)) == value


def test_what_lies_in_the_home_folder_is_there(monkeypatch, tmp_path):
    from ptune.run.cli import CLI

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.yaml").write_text("model: LinearProbe\n")
    words = ["--config=~/x.yaml", "--model.backbone", runs.bert(), "--data", "Classification", "--data.task", "rte"]
    cli = CLI.of(prepare([*words, *map(str, runs.QUIET), "--run_dir=~/x", "--ckpt_path=~/x/last.ckpt"]))
    assert cli.run_dir == str(tmp_path / "x")
    assert cli.config.ckpt_path == str(tmp_path / "x" / "last.ckpt")


@pytest.mark.parametrize("text", ["### {a} [MASK]", "5", "true", "Question: [MASK]", "- {a}"])
def test_a_text_that_is_also_yaml_stays_the_text(text):
    from ptune.research.recipe import overrides

    words = ["--model", "PTuning", "--data", "Classification", "--data.task", "rte", "--data.template", text]
    ((_, section),) = [(word, yaml.safe_load(word)) for word in prepare(words) if "\n" in word]
    assert section["data"]["init_args"] == {"template": text}
    assert overrides(words)["data"]["init_args"]["template"] == text


def test_an_argument_that_is_no_path_is_told_as_such(capsys):
    from ptune.report import main

    assert main(["~nobody-of-this-name/runs"]) == 2
    assert "path '~nobody-of-this-name/runs': there is no such home folder; write" in capsys.readouterr().err


def test_a_run_that_is_to_be_measured_stands_first():
    from ptune.evaluate import words

    with pytest.raises(InputError, match="to measure a run, ptune evaluate RUN_DIR"):
        words(["--run_dir", "runs/x"])
