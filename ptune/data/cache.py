"""Tokenized rows on disk, under a key made of everything they depend on."""

import copy
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ptune.errors import InputError, first_line

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 1
"""Part of every key: raise it when an `encode` changes what it returns."""
BLOCK = 1000
"""Number of rows that are tokenized at a time."""
SIZES = "sizes.json"
"""File of an entry with the sizes of its other files."""


def folder() -> Path:
    """$PTUNE_CACHE, or ~/.cache/ptune."""
    return Path(os.environ.get("PTUNE_CACHE") or "~/.cache/ptune").expanduser()


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Everything that decides what `tokenizer` returns, but for the arguments of its calls.

    A fast tokenizer keeps the truncation and the padding of its last call, which are left out here.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        backend = copy.deepcopy(tokenizer.backend_tokenizer)
        backend.no_truncation()
        backend.no_padding()
        content = backend.to_str()
    else:
        content = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return json.dumps([type(tokenizer).__name__, content, tokenizer.special_tokens_map], sort_keys=True, default=str)


def key(rows: list[dict], settings: Any) -> str:
    """Digest of the rows' content, of `settings` (JSON), and of this package's version."""
    try:
        release = version("ptune")
    except PackageNotFoundError:  # run from a checkout that is not installed
        release = ""
    digest = hashlib.sha256(json.dumps([VERSION, release, settings], sort_keys=True, default=str).encode())
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()[:32]


def cached(name: str, rows: list[dict], encode: Callable[[list[dict]], list[dict]]) -> "Dataset":
    """The items `encode` makes of `rows`, from the folder `name` in the cache.

    An entry that is not there, or whose files are damaged, is made from the rows.

    Raises:
        InputError: the cache's folder cannot be written.
    """
    target = folder() / name
    found = _loaded(target)
    if found is None:
        _write(target, rows, encode)
        found = _loaded(target)
    if found is None:
        raise InputError(f"the cache's entry {target} cannot be read; set PTUNE_CACHE to another folder.")
    return found


def _loaded(target: Path) -> "Dataset | None":
    """The entry, or None where a file of it is missing or damaged."""
    import datasets

    try:
        if json.loads((target / SIZES).read_text()) == _sizes(target):
            return datasets.Dataset.load_from_disk(target)
    except Exception:  # what datasets and pyarrow raise for a damaged file has no common base
        pass
    return None


def _sizes(target: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in target.iterdir() if file.name != SIZES}


def _write(target: Path, rows: list[dict], encode: Callable[[list[dict]], list[dict]]) -> None:
    """Make the entry `target` whole or not at all, whoever else makes it at the same time."""
    import datasets

    try:
        folder().mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=folder()))
        try:
            with _quiet():
                datasets.Dataset(_table(rows, encode)).save_to_disk(temporary / "data")
            (temporary / "data" / SIZES).write_text(json.dumps(_sizes(temporary / "data")))
            if os.path.lexists(target) and _loaded(target) is None:
                os.rename(target, temporary / "damaged")
            os.rename(temporary / "data", target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if _loaded(target) is None:  # otherwise another process was faster
            raise InputError(
                f"the cache {folder()} cannot be written ({first_line(error)}): set PTUNE_CACHE to a folder that can."
            ) from error


def _table(rows: list[dict], encode: Callable[[list[dict]], list[dict]]) -> Any:
    import pyarrow as pa

    blocks: Iterator[list[dict]] = (encode(rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK))
    # A block whose lists are all empty has no type yet; "permissive" takes the type from the other blocks.
    return pa.concat_tables([pa.Table.from_pylist(block) for block in blocks if block], promote_options="permissive")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar for writing a file."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    was_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not was_off:
            enable_progress_bars()
