"""A folder with a prompt to pass on: what `ptune.load` needs, and a model card, ready for `hf upload`."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ptune.backbone.pretrained import origin
from ptune.data.base import TaskData
from ptune.run import configs
from ptune.serving.loading import CONFIG, PROMPTS
from ptune.tasks.spec import TaskSpec
from ptune.tuning import saving
from ptune.tuning.tuner import PromptTuner

CARD = "README.md"
PIPELINES = {
    "classification": "text-classification",
    "multiple_choice": "multiple-choice",
    "span_qa": "question-answering",
    "tagging": "token-classification",
    "fill": "fill-mask",
}
"""The hub's name of what each task format does."""
TRAINED_WITH = ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val")
TRAINED_WITH += ("val_check_interval", "check_val_every_n_epoch", "limit_train_batches", "limit_val_batches")
"""Options of the trainer that the training command of a card repeats, where they are set."""
LEFT_OUT = ("path", "workers")
"""Options of the data that are those of the author's machine."""


def write_folder(
    run_dir: Path, model: PromptTuner, data: TaskData, folder: Path, license_: str, peft: str = ""
) -> None:
    """Write `prompts.safetensors`, `config.yaml`, `README.md` and `.eval_results` of a run.

    Args:
        run_dir: the run.
        model: its model, with the recipe of its rows.
        data: its data module.
        folder: the folder, which is made where it is not there.
        license_: the hub's name of the licence.
        peft: Python that loads the adapter for PEFT in the same folder, if there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = run_dir / PROMPTS
    if own.is_file() and "recipe" in saving.load(own)[1]:
        shutil.copyfile(own, folder / PROMPTS)
    else:  # of a method that trains nothing, or of an older version
        model.save_prompts(folder / PROMPTS)
    place = origin(model.hparams["backbone"])["pretrained_model_name_or_path"]
    for own, name in ((str(folder), "FOLDER"), (place, "BACKBONE" if Path(place).is_dir() else place)):
        peft = peft.replace(repr(own), f'"{name}"')  # a card is read elsewhere
    config = configs.read(str(run_dir / CONFIG))
    sections = {name: config[name] for name in ("model", "data")}
    arguments = {key: value for key, value in sections["data"]["init_args"].items() if key not in LEFT_OUT}
    sections["data"] = sections["data"] | {"init_args": arguments}
    saving.write_whole(folder / CONFIG, configs.dump(sections).encode())
    result = _result(run_dir)
    saving.write_whole(folder / CARD, card(model, data, result, config, license_, peft).encode())
    entries = eval_results(data.task, result)
    if entries:
        (folder / ".eval_results").mkdir(exist_ok=True)
        name = data.task.name.replace("/", "-")
        saving.write_whole(folder / ".eval_results" / f"{name}.yaml", configs.dump(entries).encode())


def _result(run_dir: Path) -> dict[str, Any]:
    """What the run measured, or its first evaluation; {} where there is neither."""
    for name in ("result.json", "evaluation.json"):
        if (run_dir / name).is_file():
            return json.loads((run_dir / name).read_text())
    return {}


def eval_results(task: TaskSpec, result: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of the hub's `.eval_results/*.yaml`, one for each split; none for data that are not on the hub.

    https://github.com/huggingface/hub-docs/blob/main/eval_results.yaml
    """
    if not task.hub:
        return []
    metric = result.get("monitor", "")
    return [
        {
            "dataset": {"id": task.hub[0], "task_id": task.hub[1] if len(task.hub) > 1 else "default"},
            "value": values[metric],
            "notes": f"{metric} on {split}, {result['rows'][split]:,} rows",
        }
        for split, values in result.get("metrics", {}).items()
    ]


def card(
    model: PromptTuner,
    data: TaskData,
    result: dict[str, Any],
    config: dict[str, Any],
    license_: str,
    peft: str = "",
) -> str:
    """The model card: task, metrics by split with their numbers of rows, training command, backbone, how to load it."""
    task, method, backbone = data.task, type(model).__name__, str(model.hparams["backbone"])
    measured = [
        (split, name, value) for split, values in result.get("metrics", {}).items() for name, value in values.items()
    ]
    pipeline, hub = PIPELINES.get(data.format), task.hub
    found = ModelCardData(
        license=license_,
        library_name="ptune",
        pipeline_tag=pipeline,
        tags=["ptune", "prompt-tuning", method],
        base_model=None if backbone.startswith("package:") or Path(backbone).exists() else backbone,
        datasets=hub[0] if hub else None,
        metrics=list(task.metrics),
        model_name=f"{method} on {task.name}",
        eval_results=[
            EvalResult(
                task_type=pipeline or data.format,
                dataset_type=hub[0] if hub else task.name,
                dataset_name=task.name,
                dataset_config=hub[1] if len(hub) > 1 else None,
                dataset_split=split,
                dataset_args={"rows": result["rows"][split]},
                metric_type=name,
                metric_name=name,
                metric_value=value,
            )
            for split, name, value in measured
            if name != "loss"
        ]
        or None,
    )
    rows = [f"| {split} | {result['rows'][split]:,} | {name} | {value:.4f} |" for split, name, value in measured]
    table = "\n".join(["| split | rows | metric | value |", "|---|---|---|---|", *rows]) if rows else "Not measured."
    trained = sum(value.numel() for value in model.tensors().values())
    where = "  # BACKBONE is the folder of the backbone above" if '"BACKBONE"' in peft else ""
    with_peft = f"\nWith PEFT:\n\n```python\n{peft}{where}\n```\n" if peft else ""
    text = f"""# {method} on {task.name}

{trained:,} numbers for the task `{task.name}` ({data.format}), made by ptune.
Backbone: `{backbone}`, fingerprint `{model.backbone.fingerprint}`.

{table}

## Use

```python
import ptune

ask = ptune.load("FOLDER")  # this folder, or its id on the hub
print(ask({_example(data)}))
```
{with_peft}
## Training

```bash
{_command(model, config)}
```
"""
    return str(ModelCard(f"---\n{found.to_yaml()}\n---\n\n{text}"))


def _example(data: TaskData) -> str:
    columns = data.read_columns
    if data.format == "multiple_choice":
        columns = (*columns, *data.task.choices)
    return "{" + ", ".join(f'"{name}": "..."' for name in columns) + "}"


def _command(model: PromptTuner, config: dict[str, Any]) -> str:
    """The command line that makes the run again."""
    words = ["python", "-m", "ptune.fit" if model.trains else "ptune.evaluate", "--config", CONFIG]
    words += ["--run_dir", "runs/again"]
    if "seed_everything" in config:
        words += ["--seed_everything", str(config["seed_everything"])]
    trainer = config.get("trainer") or {}
    for name in TRAINED_WITH:
        if trainer.get(name) is not None:
            words += [f"--trainer.{name}", str(trainer[name])]
    if config["data"]["init_args"].get("path"):
        words += ["--data.path", "DIR"]
    return shlex.join(words)
