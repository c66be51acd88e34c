"""Tokenized rows on disk, under a key made of everything they depend on."""

import copy
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ptune.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 1  # raise it when an `encode` changes what it returns
BLOCK = 1000  # rows tokenized at a time


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
    """The items `encode` makes of `rows`, from the folder `name` in the cache, which is made if it is not there.

    Raises:
        InputError: the cache's folder cannot be written.
    """
    import datasets

    target = folder() / name
    if not target.is_dir():
        try:
            folder().mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder()))
        except OSError as e:
            raise InputError(
                f"the cache {folder()} cannot be written ({e}): set PTUNE_CACHE to a folder that can."
            ) from e
        try:
            with _quiet():
                datasets.Dataset(_table(rows, encode)).save_to_disk(temporary / "data")
            os.rename(temporary / "data", target)  # whole or not at all, whoever else writes it at the same time
        except OSError:
            if not target.is_dir():  # else another process was first
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return datasets.Dataset.load_from_disk(target)


def _table(rows: list[dict], encode: Callable[[list[dict]], list[dict]]) -> Any:
    import pyarrow as pa

    blocks: Iterator[list[dict]] = (encode(rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK))
    # a block whose lists are all empty has no type yet: permissive takes it from the others
    return pa.concat_tables([pa.Table.from_pylist(block) for block in blocks if block], promote_options="permissive")


@final
class _quiet:
    """No progress bar for writing a file."""

    def __enter__(self) -> None:
        from datasets.utils import are_progress_bars_disabled, disable_progress_bars

        self.was_off = are_progress_bars_disabled()
        disable_progress_bars()

    def __exit__(self, *_: object) -> None:
        from datasets.utils import enable_progress_bars

        if not self.was_off:
            enable_progress_bars()
