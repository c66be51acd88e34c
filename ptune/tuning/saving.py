"""Trained tensors in files, and whether they fit a model."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ptune.errors import InputError


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Write a file that is whole or not there: beside its target, flushed to the disk, then renamed over it."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def save(path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and what they depend on as one safetensors file."""
    write_whole(path, serialize({name: value.detach().contiguous() for name, value in tensors.items()}, metadata))


def load(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata that `save` wrote; InputError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a file that save_prompts wrote ({error}).") from error


def compare(what: str, saved: dict[str, Any], own: dict[str, Any]) -> None:
    """Raise InputError that names the first key of `own` whose value is another in what was `saved`."""
    for key in own:
        there, here = saved.get(key), own[key]
        if there != here:
            if isinstance(here, list):  # of a whole backbone's tensors, perhaps: the first that differ tell enough
                there, here = [x for x in there or [] if x not in here][:3], [x for x in here if x not in there][:3]
            raise InputError(
                f"{what} does not fit this model: {key} is {there} there and {here} here; "
                "build the model as it was saved, or choose another file."
            )


def shapes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names and shapes, for `compare`."""
    return sorted(f"{name} {list(value.shape)}" for name, value in tensors.items())


def plain(value: Any) -> Any:
    """Tuples as lists, which YAML and a checkpoint's weights-only reader know."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def tuples(value: Any) -> Any:
    """Lists as tuples, again."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value
