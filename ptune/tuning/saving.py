"""Trained tensors in files, and whether they fit a model."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ptune.errors import InputError


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write bytes into, which becomes `path` with all of them when the block ends, or not at all.

    The bytes go to a file in the same folder, with the permissions of the user's umask, which replaces `path` once the
    disk has it. Raises OSError where that is impossible; `path` is then as it was before.
    """
    with _replacing(path) as temporary, temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _replacing(path: str | os.PathLike) -> Iterator[Path]:
    """The name of a file in the same folder, which replaces `path` when the block ends well."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def link_whole(source: str | os.PathLike, path: str | os.PathLike) -> bool:
    """Let `path` be a second name of the file `source`, from one moment to the next, and say whether that is done.

    It is not where the file system has no hard links, or `source` is not there; `path` is then as it was before.
    """
    try:
        with _replacing(path) as temporary:
            os.link(source, temporary)
    except OSError:
        return False
    return True


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Write a file completely or not at all; see `whole`."""
    with whole(path) as file:
        file.write(data)


def save(path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors, in fp32, and the metadata they depend on as one safetensors file."""
    values = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    write_whole(path, serialize(values, metadata))


def load(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata that `save` wrote; InputError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a file that save_prompts wrote ({error}).") from error


def compare(what: str, saved: dict[str, Any], own: dict[str, Any]) -> None:
    """Raise InputError that names the first key whose value in `saved` differs from that in `own`."""
    for key in own:
        there, here = saved.get(key), own[key]
        if there != here:
            if isinstance(here, list):  # it may name all tensors of a backbone: show the first three that differ
                there, here = [x for x in there or [] if x not in here][:3], [x for x in here if x not in there][:3]
            raise InputError(
                f"{what} does not fit this model: {key} is {there} there and {here} here; "
                "build the model as it was saved, or choose another file."
            )


def check_values(what: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise InputError that names the first tensor which is not fp32, or not finite."""
    for name, value in tensors.items():
        if value.dtype != torch.float32:
            dtype = str(value.dtype).removeprefix("torch.")
            raise InputError(f"{what}: {name} is {dtype}, but trained tensors are saved as float32; give such a file.")
        if not value.isfinite().all():
            raise InputError(f"{what}: {name} holds NaN or infinite values; give the file of another run.")


def shapes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names and shapes, for `compare`."""
    return sorted(f"{name} {list(value.shape)}" for name, value in tensors.items())


def plain(value: Any) -> Any:
    """Turn tuples into lists, which YAML and torch's weights-only reader of checkpoints accept."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def tuples(value: Any) -> Any:
    """Turn lists back into tuples."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value
