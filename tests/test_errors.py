"""A mistake in the input: one sentence with the key, the value and the fix, exit code 2, and nothing written."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import runs
import torch

FORMAT = ("--data", "Classification", "--data.task", "toy/pair")
OWN = ("--data", "Classification", "--data.task.text", "[sentence1,sentence2]")
LABELS = ("--data.task.labels", "[no,yes]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything that can be wrong in a file, by the names used below."""
    top = tmp_path_factory.mktemp("mistakes")
    row = '{"sentence1": "the nurse", "sentence2": "the pilot", "label": 1}\n'
    folders = {
        "good": {"train.jsonl": row * 3, "validation.jsonl": row},
        "nothing": {},
        "no-train": {"validation.jsonl": row},
        "empty": {"train.jsonl": row, "validation.jsonl": ""},
        "malformed": {"train.jsonl": row, "validation.jsonl": row + row + '{"sentence1": \n'},
        "short": {"train.csv": "sentence1,sentence2,label\na,b,1\nc,d\n", "validation.jsonl": row},
        "label": {"train.jsonl": row + row.replace("1}", '"yess"}'), "validation.jsonl": row},
        "column": {"train.jsonl": row, "validation.jsonl": row.replace('sentence2"', 'sentence_2"')},
        "blank": {"train.jsonl": row + row.replace("the nurse", " "), "validation.jsonl": row},
    }
    for name, files in folders.items():
        (top / name).mkdir()
        for file, text in files.items():
            (top / name / file).write_text(text)
    yaml = {
        "broken": "model: [1,\n",
        "list": "- a\n",
        "void": "",
        "model": "model:\n  class_path: PTuningV2\n  init_args:\n    lenght: 3\n",
        "trainer": "trainer:\n  max_epoch: 3\n",
        "group": "modle:\n  class_path: PTuningV2\n",
        "task": "data:\n  class_path: Classification\n  init_args:\n    task:\n      lables: [a, b]\n",
        "linked": "data:\n  class_path: Classification\n  init_args:\n    task: toy/pair\n    backbone: x\n",
        "head": "model:\n  class_path: PTuningV2\n  init_args:\n    head:\n      kind: tag\n",
        "slots": "data:\n  class_path: Classification\n  init_args:\n    slots: 4\n",
    }
    for name, text in yaml.items():
        (top / f"{name}.yaml").write_text(text)
    (top / "file").write_text("not a checkpoint")
    torch.save({"no": "run"}, top / "other.ckpt")
    return top


def refusal(words, run_dir) -> str:
    """The sentence a command line is refused with."""
    options = ["--trainer.max_epochs", "1", "--run_dir", str(run_dir), *map(str, runs.QUIET)]
    given = set(words)
    kept = [i for i in range(0, len(options), 2) if options[i] not in given]
    words = [*words, *(option for i in kept for option in options[i : i + 2])]
    code, out, err = runs.call(words)
    assert code == 2, out + err
    lines = [text for text in err.splitlines() if not text.startswith("Seed set to")]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in out + err
    return lines[0]


def words(text: str, place) -> list[str]:
    """A command line written as one text; capitals stand for what is right, @ for `place`."""
    short = {
        "MODEL": ("--model", "PTuningV2", "--model.backbone", runs.bert()),
        "TASK": FORMAT,
        "LM": ("--model", "PTuning", "--model.length", "3", "--model.backbone", runs.bert(lm=True)),
        "MANUAL": ("--model", "ManualPrompt", "--model.backbone", runs.bert(lm=True)),
        "PROBE": ("--model", "LinearProbe", "--model.backbone", runs.bert(lm=True)),
        "GPT": ("--model", "PTuning", "--model.length", "3", "--model.backbone", runs.gpt2()),
        "WORDS": ("--data.verbalizer", "{no: judge, yes: baker}"),
        "DATA": (*FORMAT, "--data.path", f"{place}/good"),
        "OWN": (*OWN, *LABELS, "--data.path", f"{place}/good"),
    }
    return [part.replace("@", f"{place}/") for word in text.split() for part in short.get(word, (word,))]


REFUSED = {
    # names that do not exist, with the nearest one that does
    "MODEL --data Classification --data.task toy/pear": "'toy/pear' 'toy/pair'",
    "--model PTuningV3 TASK": "--model 'PTuningV3' 'PTuningV2'",
    "MODEL --data Clasification --data.task rte": "--data 'Clasification' 'Classification'",
    "MODEL --model.lenght 3 TASK": "--model.lenght --model.length",
    "MODEL TASK --data.bath_size 3": "--data.bath_size --data.batch_size",
    "MODEL TASK --run_dirr x": "--run_dirr --run_dir",
    "MODEL TASK --wandb.enabel false": "--wandb.enabel --wandb.enabled",
    "MODEL OWN --data.task.lables [a]": "--data.task.lables --data.task.labels",
    "MODEL OWN --data.task.text a": "--data.task.text 'a': must be a list, such as '[a]'.",
    "MODEL OWN --data.task.labels [true,false]": "--data.task.labels quotes",
    "MODEL OWN --data.verbalizer a": "--data.verbalizer must be a mapping, such as '{no: bad, yes: good}'.",
    "MODEL TASK --nonsense": "--nonsense --help",
    "MODEL TASK stray": "stray",
    # values of options that are no class's own
    "MODEL TASK --predictions maybe": "--predictions 'maybe': must be true or false.",
    "MODEL TASK --cache_frozen ture": "--cache_frozen 'ture': must be true or false or auto.",
    "MODEL TASK --compile ture": "--compile 'ture': must be true or false.",
    "MODEL TASK --every_n_steps x": "--every_n_steps 'x': must be a whole number (int).",
    # abbreviations, which argparse accepts by itself
    "MODEL TASK --trainer.max_epoch 3": "--trainer.max_epoch --trainer.max_epochs",
    "MODEL TASK --mod FineTuning": "--mod --model",
    "MODEL TASK --run runs/x": "--run --run_dir",
    # options of another class, before their class, or missing
    "--model FineTuning --model.length 3 TASK": "--model.length PTuningV2",
    "--model.length 5 --model PTuningV2 TASK": "--model.length PTuningV2",
    "MODEL TASK --data.stride 3": "--data.stride SpanQA",
    "MODEL --data.task toy/pair": "--data --data.task Classification Tagging",
    "MODEL --data Classification": "--data.task ptune.tasks",
    "MODEL": "--data Classification",
    "TASK": "--model PTuningV2 FineTuning",
    # what a link decides
    "MODEL TASK --model.head null": "--model.head --data.task",
    "MODEL TASK --model.init_args.head.kind tag": "--model.head --data.task",
    "MODEL TASK --data.slots 3": "--data.slots --model",
    "MODEL TASK --data.slots=3": "--data.slots --model",
    "MODEL TASK --data.backbone x": "--data.backbone --model.backbone",
    "MODEL TASK --config @linked.yaml": "--data.backbone --model.backbone",
    "--config=@head.yaml TASK": "--model.head --data.task",
    "-c @slots.yaml MODEL": "--data.slots --model",
    # configuration files
    "--config @missing.yaml": "--config @missing.yaml exist",
    "--config @good": "--config @good folder",
    "--config @broken.yaml": "--config @broken.yaml YAML",
    "--config @list.yaml": "--config @list.yaml names values",
    "--config @void.yaml": "--config @void.yaml names values",
    "--config @model.yaml TASK": "--model.lenght --model.length",
    "--config @trainer.yaml MODEL TASK": "--trainer.max_epoch --trainer.max_epochs",
    "--config @group.yaml TASK": "--modle --model",
    "--config @task.yaml MODEL": "--data.task.lables --data.task.labels",
    # a task in the wrong data module
    "MODEL --data Tagging --data.task toy/pair": "'toy/pair' tagging --data Classification",
    "MODEL --data Classification --data.task toy/qa": "'toy/qa' span_qa --data SpanQA",
    "MODEL --data SpanQA --data.task swag": "'swag' multiple_choice --data MultipleChoice",
    # files
    "MODEL TASK --data.path @missing": "--data.path @missing exist validation.jsonl",
    "MODEL TASK --data.path @file": "--data.path @file .jsonl",
    "MODEL TASK --data.path @nothing": "--data.path @nothing 'validation' .jsonl",
    "MODEL TASK --data.path @no-train": "@no-train 'train'",
    "MODEL TASK --data.path @empty": "@empty/validation.jsonl rows",
    "MODEL TASK --data.path @malformed": "@malformed/validation.jsonl, line 3: JSON",
    "MODEL TASK --data.path @short": "@short/train.csv, line 3: 2 fields",
    "MODEL TASK --data.path @label": "@label/train.jsonl, line 2: 'label' 'yess' 'yes'",
    "MODEL TASK --data.path @column": "@column/validation.jsonl, line 1: 'sentence2' 'sentence_2'",
    "MODEL TASK --data.path @blank": "@blank/train.jsonl, line 2: 'sentence1' empty",
    "MODEL --data Classification --data.task rte": "'rte' --data.path train.jsonl.gz",
    # a task of one's own
    "MODEL OWN --data.task.label lable": "line 1: 'lable' 'label'",
    "MODEL OWN --data.task.text [sentense1]": "line 1: 'sentense1' 'sentence1'",
    "MODEL OWN --data.task.labels []": "--data.task.labels --data.task.metrics",
    "MODEL OWN --data.task.text [] --data.task.label sentence1": (
        "--data.task.text @good/train.jsonl: 'sentence1', 'label'"
    ),
    "MODEL OWN --data.task.metrics [acuracy]": "'acuracy' 'accuracy'",
    "MODEL OWN --data.task.monitor f1": "'f1' ['accuracy', 'macro_f1']",
    "MODEL OWN --data.task.format tag": "--data.task.format 'tag' 'tagging'",
    # backbones
    "--model PTuningV2 --model.backbone /missing/bert TASK": "'/missing/bert' config.json",
    "--model PTuningV2 --model.backbone ./bert TASK": "'./bert' config.json",
    "--model PTuningV2 --model.backbone @good TASK": "@good config.json",
    "--model FineTuning --model.backbone bert-base-uncased TASK": "'bert-base-uncased' offline local folder",
    "--model PTuningV2 --model.backbone package:missing_package/model TASK": "'missing_package' installed",
    "--model PTuningV2 --model.backbone package:torch/missing TASK": "'package:torch/missing' config.json",
    # texts longer than the 64 positions there are
    "MODEL DATA --data.max_length 65": "data.max_length 65 64",
    "MODEL DATA --data.max_length 60 --model.shift_positions true --model.length 5": "60 prefix of 5 59",
    "MODEL DATA --model.shift_positions true --model.length 64": "32 prefix of 64 64",
    "MODEL DATA --data.max_length 5": "--data.max_length 5 raise",
    # values
    "MODEL DATA --model.length 0": "length: 0 1",
    "MODEL DATA --model.length x": "--model.length 'x' int",
    "MODEL DATA --model.length 1.5": "--model.length '1.5' int",
    "MODEL DATA --model.lr -1": "lr: -1.0 0",
    "MODEL DATA --model.lr 0": "lr: 0.0 0",
    "MODEL DATA --model.head_lr -0.1": "head_lr: -0.1 0",
    "MODEL DATA --model.decay 0": "decay: 0.0 0",
    "MODEL DATA --model.layers last:99": "'last:99' last:N 2",
    "MODEL DATA --model.layers [0,5]": "[0, 5] 0 to 1",
    "MODEL DATA --model.layers some": "'some' all last:N",
    "MODEL DATA --model.init text": "init_text 'text'",
    "MODEL DATA --model.init_text hello": "'hello' 'normal'",
    "MODEL DATA --model.init zero": "init: 'zero' normal run:DIR",
    "MODEL DATA --model.init run:": "init: 'run:' run:DIR",
    "MODEL DATA --model.init run:nowhere": "init: nowhere/prompts.safetensors run:DIR",
    "MODEL DATA --model.init text --model.init_text hello --model.mlp 8": "mlp: 8 init: normal",
    "MODEL DATA --model.init identity --model.shift_positions true": "shift_positions identity",
    "MODEL DATA --model.schedule exponential --model.warmup 0.1": "warmup: 0.1 'exponential'",
    "MODEL DATA --model.schedule step": "--model.schedule 'step' cosine",
    "MODEL DATA --model.warmup -1": "warmup: -1.0 at least 0",
    "MODEL DATA --model.weight_decay -1": "weight_decay: -1.0 at least 0",
    "MODEL DATA --model.head_dropout 1": "head_dropout: 1.0 below 1",
    "MODEL DATA --model.prefix_dropout 1": "prefix_dropout: 1.0 below 1",
    "MODEL DATA --model.mlp -1": "mlp: -1 0",
    "MODEL DATA --model.pool average": "--model.pool 'average' mean",
    "--model PromptTuning OWN --data.task.labels [] --data.task.metrics [pearson] --model.init labels": "init 'labels' "
    "'good' vocab",
    "--model PTuning DATA --model.backbone_lr -1": "backbone_lr: -1.0 0",
    # adapters
    "--model LoRA DATA --model.rank 0": "rank: 0 1",
    "--model LoRA DATA --model.alpha 0": "alpha: 0.0 0",
    "--model LoRA DATA --model.dropout 1": "dropout: 1.0 below 1",
    "--model LoRA DATA --model.targets query": "targets: 'query' all-linear [query, value]",
    "--model LoRA DATA --model.targets [qery]": "targets: LoraConfig 'qery' query",
    "--model PEFT DATA --model.config IA2Config": "config: 'IA2Config' 'IA3Config'",
    "--model PEFT DATA --model.config PrefixTuningConfig": "config: PrefixTuningConfig --model PTuningV2",
    "--model PEFT DATA --model.config AdaLoraConfig": "config: AdaLoraConfig IA3Config",
    "--model PEFT DATA --model.config VeraConfig": "VeraConfig shared state",
    "--model PEFT DATA --model.options {'target_module':['query']}": "options: 'target_module' 'target_modules'",
    "MODEL DATA --data.batch_size 0": "--data.batch_size 0 1",
    "MODEL DATA --data.workers -1": "--data.workers -1 0",
    "MODEL DATA --seed_everything x": "--seed_everything 'x' int",
    "MODEL DATA --seed_everything -1": "seed_everything -1",
    "MODEL DATA --trainer.max_epochs x": "--trainer.max_epochs 'x' int",
    "MODEL DATA --trainer.max_epochs -5": "trainer max_epochs -5",
    "MODEL DATA --trainer.accelerator gpuu": "trainer 'gpuu' cpu",
    "MODEL DATA --trainer.limit_train_batches 2.5": "trainer 2.5 limit_train_batches",
    "MODEL DATA --trainer.max_epochs -1": "schedule 'linear' trainer.max_epochs trainer.max_steps",
    "MODEL DATA --trainer.callbacks+=EarlyStoppin": "--trainer.callbacks 'EarlyStoppin' my_module.MyClass",
    "MODEL DATA --trainer.callbacks+=nowhere.Mine": "--trainer.callbacks 'nowhere.Mine' No module named",
    "MODEL DATA --trainer.logger runs.MyLogger": "--trainer.logger 'runs.MyLogger' no attribute 'MyLogger'",
    "--model nowhere.Mine DATA": "--model 'nowhere.Mine' cannot be imported No module named 'nowhere'",
    "--model runs.Mine DATA": "--model 'runs.Mine' cannot be imported no attribute 'Mine'",
    "--model runs.fit DATA": "--model 'runs.fit' no subclass of PromptTuner",
    "MODEL DATA --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val/acuracy": (
        "EarlyStopping 'val/acuracy' 'val/accuracy'"
    ),
    # templates and verbalizers, in a language model's own words
    "LM DATA WORDS --data.template {sentence1}It": "'{sentence1}It' no [MASK] write",
    "LM DATA WORDS --data.template {sentence1}[MASK]or[MASK]": "2 [MASK]s write one",
    "LM DATA WORDS --data.template It[MASK]": "names no column {sentence}",
    "LM DATA WORDS --data.template {sentence1}[SLOT][MASK]": "[SLOT] [P:n] [MASK]",
    "LM DATA WORDS --data.template {sentence1}[P:x][MASK]": "[P:x] number [P:3]",
    "LM DATA WORDS --data.template {sentence1}[P:2][MASK]": "2 slots 3 --model.length 2",
    "MANUAL DATA WORDS --data.template {sentence1}[P:2][MASK]": "2 slots 0 leave",
    "LM DATA WORDS --data.template {sentense1}[MASK]": "@good/train.jsonl, line 1: 'sentense1' 'sentence1'",
    "LM DATA WORDS --data.template task --data.task toy/pair": "--data.template task 'toy/pair' none",
    "LM DATA --data.template {sentence1}[MASK]": "verbalizer 'no' no word",
    "LM DATA --data.template {sentence1}[MASK] --data.verbalizer {no:judge}": "verbalizer",
    "LM DATA --data.template {sentence1}[MASK] --data.verbalizer.no judge": "verbalizer",
    "LM DATA WORDS": "--data.verbalizer --data.template",
    "LM DATA WORDS --data.template {sentence1}[MASK] --data.max_length 12": "--data.max_length 12 raise",
    "LM DATA --data.demonstrations 2": "--data.demonstrations 2 --data.template",
    "LM DATA WORDS --data.template {sentence1}[MASK] --data.demonstrations 9": "--data.demonstrations 9 3 rows",
    "LM DATA --data.shots 2": "--data.shots 2 @good/train.jsonl 3 rows 4 1",
    "GPT DATA WORDS --data.template {sentence1}[MASK]{sentence2}": "'sentence2' behind [MASK] move",
    "MODEL DATA WORDS --data.template {sentence1}[MASK]": "language-model head lacks template",
    "PROBE DATA WORDS --data.template {sentence1}[MASK]": "LinearProbe nothing ManualPrompt --data.template",
    "MANUAL DATA": "ManualPrompt --data.template",
    "MANUAL DATA WORDS --data.template {sentence1}[MASK]": "ManualPrompt nothing python -m ptune.evaluate",
    # checkpoints
    "MODEL DATA --ckpt_path last": "ckpt_path last.ckpt exist",
    "MODEL DATA --ckpt_path @missing.ckpt": "ckpt_path @missing.ckpt exist",
    "MODEL DATA --ckpt_path @good": "ckpt_path @good",
    "MODEL DATA --ckpt_path @file": "ckpt_path @file checkpoint",
    "MODEL DATA --ckpt_path @other.ckpt": "ckpt_path @other.ckpt checkpoint",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_mistake_is_one_sentence_that_names_key_value_and_fix_and_nothing_is_written(line, place, tmp_path):
    sentence = refusal(words(line, place), tmp_path / "run")
    missing = [part for part in REFUSED[line].replace("@", f"{place}/").split() if part not in sentence]
    assert not missing, sentence
    assert runs.contents(tmp_path) == {}


@pytest.mark.slow
def test_a_process_with_a_mistake_exits_with_2_and_one_line_on_stderr(tmp_path):
    command = [sys.executable, "-m", "ptune.fit", "--model", "PTuningV2", *FORMAT, "--data.pth", "x"]
    done = subprocess.run(command, cwd=runs.REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "error: option --data.pth does not exist; did you mean --data.path?\n"
    assert done.stdout == ""


def test_after_a_refusal_the_corrected_command_runs_in_the_same_directory(place, tmp_path):
    refusal(words("MODEL TASK --data.path @malformed", place), tmp_path / "run")
    refusal(words("MODEL DATA --data.max_length 65", place), tmp_path / "run")
    assert runs.fit(tmp_path / "run", path=place / "good", trainer__max_epochs=1)["steps"] == 1


# ---- directories and checkpoints of other runs


@pytest.fixture
def unfinished(tmp_path):
    """The directory of a run that was stopped."""
    run_dir = tmp_path / "unfinished"
    shutil.copytree(runs.finished(), run_dir)
    for name in ("result.json", "prompts.safetensors"):
        (run_dir / name).unlink()
    return run_dir


@pytest.mark.parametrize(
    ("state", "parts"), [("finished", ["finished run"]), ("unfinished", ["unfinished run", "--ckpt_path auto"])]
)
def test_a_directory_that_holds_a_run_is_refused_and_stays_as_it_is(state, parts, request):
    run_dir = runs.finished() if state == "finished" else request.getfixturevalue(state)
    before = runs.contents(run_dir)
    sentence = refusal(runs.line(run_dir), run_dir)
    assert all(part in sentence for part in [repr(str(run_dir)), "choose another", *parts]), sentence
    assert runs.contents(run_dir) == before


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        ({"model__backbone": lambda: runs.bert(seed=1)}, ["backbone is"]),
        ({"model__backbone": lambda: runs.bert(layers=3)}, ["backbone is"]),
        ({"method": "LinearProbe"}, ["method is PTuningV2 there and LinearProbe here"]),
        ({"method": "FineTuning"}, ["method is PTuningV2 there and FineTuning here"]),
        ({"name": "toy/single"}, ["task is toy/pair there and toy/single here"]),
        ({"model__length": 3}, ["length is 20 there and 3 here"]),
        ({"model__layers": "last:1"}, ["layers is [0, 1] there and [1] here"]),
        ({"model__shift_positions": True}, ["shift_positions is False there and True here"]),
        ({"model__mlp": 8}, ["tensors is", "prompt.encoder.flat [20, 128]", "prompt.encoder.mlp.0.weight [8, 32]"]),
        ({"model__init": "identity"}, ["tensors is", "prompt.gate [2, 2]"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "-",
)
def test_a_checkpoint_of_another_model_is_refused_with_what_differs_and_the_run_stays_as_it_is(
    other, parts, unfinished
):
    before = runs.contents(unfinished)
    other = {key: value() if callable(value) else value for key, value in other.items()}
    allow = "max_epochs,model,data.task"  # what is not allowed is refused before, each option by its name
    sentence = refusal(runs.line(unfinished, **other, ckpt_path="last", allow_change=allow), unfinished)
    assert all(part in sentence for part in ["the checkpoint does not fit this model", *parts]), sentence
    assert runs.contents(unfinished) == before


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_run_dir_that_is_a_file_or_below_one_is_refused(below, place):
    run_dir = place / "file" / below
    sentence = refusal(runs.line(run_dir), run_dir)
    assert all(part in sentence for part in ["run_dir", str(run_dir), "cannot be written", "choose another"]), sentence
    assert (place / "file").read_text() == "not a checkpoint"


@pytest.mark.skipif(not os.path.isdir("/proc/sys"), reason="needs a directory that not even root can write")
def test_a_run_dir_that_cannot_be_written_is_refused():
    sentence = refusal(runs.line("/proc/sys/run"), "/proc/sys/run")
    assert "'/proc/sys/run' cannot be written" in sentence


# ---- what Lightning would refuse later, or not at all


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--trainer.devices 99", f"trainer.devices: 99, but this machine has {os.cpu_count()} CPU cores"),
        ("--trainer.devices a", "trainer: `devices`"),
        ("--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val/loss --trainer.callbacks.mode low",
         "trainer: EarlyStopping cannot be built (`mode` can be min, max, got low)"),
        ("--trainer.callbacks=Timer", "trainer: Timer has an option that config.yaml cannot hold"),
        ("--trainer.strategy ddp_spawn", "trainer.strategy: 'ddp_spawn' would pickle the run; use ddp"),
        ("--trainer.overfit_batches 2", "trainer.overfit_batches: 2"),
        ("--trainer.log_every_n_steps 0", "trainer.log_every_n_steps: 0 must be at least 1"),
        ("--trainer.accumulate_grad_batches -1", "trainer.accumulate_grad_batches: -1 must be at least 1"),
        ("--trainer.val_check_interval 0", "trainer.val_check_interval: 0 must be greater than 0"),
        ("--trainer.val_check_interval 1000000", "trainer: `val_check_interval` (1000000) must be less"),
        ("--trainer.check_val_every_n_epoch 0", "trainer.check_val_every_n_epoch: 0 must be at least 1"),
        ("--trainer.gradient_clip_val .nan", "trainer.gradient_clip_val: nan must be at least 0"),
        ("--trainer.limit_val_batches 0.0001", "trainer: You requested to check 0.0001 of the `val_dataloader`"),
        ("--trainer.accelerator tpu", "trainer: Requirement 'torch_xla"),
    ],
)  # fmt: skip
def test_an_option_that_lightning_cannot_use_is_one_sentence_and_leaves_nothing(words, parts, place, tmp_path):
    model = ["--model", "PTuningV2", "--model.backbone", runs.bert(), *FORMAT, "--data.path", f"{place}/good"]
    assert parts in refusal([*model, *words.split()], tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_whose_unknown_token_is_unknown_is_one_sentence(tmp_path):
    shutil.copytree(runs.bert(), tmp_path / "bert")
    file = tmp_path / "bert" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unk_token": ""}))
    sentence = refusal(["--model", "PTuningV2", "--model.backbone", f"{tmp_path}/bert", *FORMAT], tmp_path / "run")
    assert "no tokenizer can be loaded from it (maximum recursion depth exceeded" in sentence
