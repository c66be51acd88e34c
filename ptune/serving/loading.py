"""`load`: a trained prompt, from a run directory, a folder that was exported, one file, or the hub."""

import json
import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ptune.data.base import TaskData
from ptune.errors import InputError, absent, first_line, near_path
from ptune.run import catalog, checkpoints, finished
from ptune.serving.predictor import Predictor
from ptune.tasks import spec_of
from ptune.tuning import saving
from ptune.tuning.tuner import PromptTuner

PROMPTS, CONFIG = "prompts.safetensors", "config.yaml"
"""The files of a prompt that is passed on."""


def load(
    path: str | Path,
    device: str = "auto",
    batch_size: int | None = None,
    backbone: str | None = None,
    trust: bool = False,
) -> Predictor:
    """A trained prompt that answers: `ptune.load("runs/x")("a text")`.

    Nothing that a file names is executed: only ptune's own methods and data modules are built, unless `trust` is set.

    Args:
        path: a run directory, a folder that `ptune.export` wrote, a `prompts.safetensors`, a checkpoint (`best.ckpt`),
            or the hub id of such a folder.
        device: where to compute; "auto" takes the accelerator if there is one.
        batch_size: rows in a batch; by default the run's, or 32 for a file.
        backbone: the backbone's place, where it is no longer that of the run; its weights must be the same.
        trust: let the config.yaml of a folder name classes that are not ptune's: their code is executed.

    Raises:
        InputError: there is nothing to load, or what is there does not fit together.
    """
    place = Path(os.path.expanduser(path))
    if not place.exists():
        place = _of_hub(str(path))
    if place.is_dir() and ((place / CONFIG).is_file() or not (place / PROMPTS).is_file()):
        model, data, precision = _of_folder(place, backbone, trust)
    elif place.suffix == ".ckpt":
        model, data, precision = _of_checkpoint(place, backbone)
    else:
        model, data, precision = _of_file(place / PROMPTS if place.is_dir() else place, backbone)
    if batch_size is not None:
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size} must be at least 1.")
        data.batch_size = batch_size
    if device == "auto":
        device = str(torch.accelerator.current_accelerator() or "cpu") if torch.accelerator.is_available() else "cpu"
    return Predictor(model, data, device, precision)


def of_folder(folder: Path, trust: bool = False) -> Predictor:
    """The prompt of a run directory, on the CPU."""
    model, data, precision = _of_folder(folder, None, trust)
    return Predictor(model, data, "cpu", precision)


def _of_hub(name: str) -> Path:
    """The folder of a prompt on the hub, in the hub's cache."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.endswith((".safetensors", ".ckpt")):
        raise InputError(absent(name, "give a run directory, a prompts.safetensors, a best.ckpt or a hub id."))
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[PROMPTS, CONFIG]))
    except Exception as error:  # the hub's errors have no common base
        near = near_path(name)
        raise InputError(
            f"{name}: there is no such folder here, and the hub does not give it ({first_line(error)})"
            + (f"; {near}" if near else ".")
        ) from error


def _of_folder(folder: Path, backbone: str | None, trust: bool) -> tuple[PromptTuner, TaskData, str]:
    """Of a run directory or an exported folder."""
    options = [] if backbone is None else ["--model.backbone", backbone]
    model, data = finished.read(folder, *options, trust=trust)
    metadata = saving.load(folder / PROMPTS)[1] if (folder / PROMPTS).is_file() else {}
    recipe = _parsed(folder / PROMPTS, metadata, "recipe")
    if recipe:
        data.restore(recipe["learned"])
    elif data.learned():  # an old run, or a method that trains nothing: read the data again
        data.setup("validate")
    return model, data, metadata.get("precision", "32-true")


def _of_file(file: Path, backbone: str | None) -> tuple[PromptTuner, TaskData, str]:
    """Of a file that `save_prompts` wrote."""
    _, metadata = saving.load(file)
    arguments = _parsed(file, metadata, "arguments")
    model, data = _built(file, metadata.get("method", ""), arguments, _parsed(file, metadata, "recipe"), backbone)
    model.load_prompts(file)
    return model, data, metadata.get("precision", "32-true")


def _of_checkpoint(file: Path, backbone: str | None) -> tuple[PromptTuner, TaskData, str]:
    """Of a checkpoint that a run wrote."""
    checkpoint = checkpoints.read(file, file.parent)
    arguments = {name: value for name, value in checkpoint["hyper_parameters"].items() if name != "head"}
    method = checkpoint["metadata"]["method"]
    model, data = _built(file, method, arguments, checkpoint.get("recipe", {}), backbone)
    model.configure_model()
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"], strict=False)  # it holds trained tensors only
    return model, data, checkpoint.get("precision", "32-true")


def _parsed(file: Path, metadata: dict[str, str], key: str) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(key, "{}"))
    except ValueError as error:
        raise InputError(f"{file}: its {key} is not JSON ({first_line(error)}); give a file of ptune's.") from error
    return found if isinstance(found, dict) else {}


def _built(
    file: Path, method: str, arguments: dict[str, Any], recipe: dict[str, Any], backbone: str | None
) -> tuple[PromptTuner, TaskData]:
    """A model without its trained tensors, and the data module that reads its rows."""
    if not arguments or not recipe:
        raise InputError(
            f"{file}: does not say how its rows are read, because it was saved without a data module; load it into a "
            "model with load_prompts."
        )
    cls, options = _class(file, "model", method)
    module, _ = _class(file, "data", recipe.get("class", ""))
    # A method that sets an argument of the base class itself does not take it.
    base = catalog.entry("ptune.tuning.tuner", "PromptTuner").options
    arguments = {name: value for name, value in arguments.items() if name in options or name not in base}
    arguments |= {} if backbone is None else {"backbone": backbone}
    try:
        reading = dict(recipe["arguments"])
        spec = spec_of(reading.pop("task"))
        slots = arguments[cls.slot_argument] if cls.slot_argument else 0
        data = module(spec, arguments["backbone"], slots=slots, **reading)
        data.restore(recipe["learned"])
        return cls(head=data.head, **arguments), data
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: is of another version of ptune ({first_line(error)}); save it again.") from error


def _class(file: Path, group: str, name: str) -> tuple[Any, dict[str, catalog.Option]]:
    """A class of ptune by its name, and its options."""
    entry = catalog.classes(group).get(name)
    if entry is None:
        raise InputError(f"{file}: {group} is {name!r}, no class of ptune, so it is not executed.")
    return getattr(import_module(entry.module), name), entry.options
