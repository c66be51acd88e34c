"""Rows on disk as memory-mapped Datasets, under a key made of everything they depend on.

An entry is a folder with one Arrow file. The cache of `datasets` itself would not do: it tells a changed file by its
time alone, and serves a file that is cut off or empty.
"""

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from ptune.data import arrow
from ptune.data.digest import digest
from ptune.errors import InputError, first_line, note

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

VERSION = 4
"""Part of every key: raise it when a `parse` or an `encode` changes what it returns."""
BLOCK = 1000
"""Number of rows that are checked or tokenized at a time."""
FILE = "rows.arrow"
"""File of an entry that holds its rows."""
ENTRY = "entry.json"
"""File of an entry with the digest of its rows' file, which is compared when it is opened, and their fingerprint."""
LOCKS = ".locks"
"""Folder of the cache whose files are locked while an entry is made."""


def folder() -> Path:
    """$PTUNE_CACHE, or ~/.cache/ptune."""
    return Path(os.environ.get("PTUNE_CACHE") or "~/.cache/ptune").expanduser()


def fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Everything that decides what `tokenizer` returns, but for the arguments of its calls.

    A fast tokenizer keeps the truncation and the padding of its last call, which are left out here.
    """
    from transformers import PreTrainedTokenizerFast

    if isinstance(tokenizer, PreTrainedTokenizerFast):
        backend = copy.deepcopy(tokenizer.backend_tokenizer)
        backend.no_truncation()
        backend.no_padding()
        content = backend.to_str()
    else:
        content = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    settings = [tokenizer.special_tokens_map, tokenizer.truncation_side, tokenizer.model_input_names]
    return json.dumps([type(tokenizer).__name__, content, settings], sort_keys=True, default=str)


def key(*parts: Any) -> str:
    """Digest of JSON values, the same in every process."""
    return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True, default=str).encode())


def release() -> tuple[int, str]:
    """What the code that makes rows is: `VERSION` and this package's version."""
    try:
        return VERSION, version("ptune")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return VERSION, ""


def content(file: Path) -> str:
    """Digest of a file's bytes. Nothing is concluded from its path or its times, which may stay when it changes."""
    found = xxhash.xxh3_128()
    with file.open("rb") as data:
        while block := data.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def cached(name: str, blocks: Callable[[], arrow.Blocks], what: str = "", total: int | None = None) -> "Dataset":
    """The rows of `blocks`, from the entry `name` of the cache; its fingerprint is the digest of their content.

    An entry that is not there, or whose files are damaged, is made anew. Of several processes that need it one makes
    it, and the others wait. If that takes more than a second, a bar shows `what` is done and how many of `total`.

    Raises:
        InputError: the cache's folder cannot be written, or what `blocks` raises.
    """
    target = folder() / name
    found = _loaded(target)
    if found is None:
        try:
            folder().mkdir(parents=True, exist_ok=True)
            with _locked(name):
                found = _loaded(target)  # another process may have made it in the meantime
                if found is None:
                    _make(target, _shown(blocks(), what, total))
                    found = _loaded(target)
        except OSError as error:
            raise InputError(
                f"the cache {folder()} cannot be written ({first_line(error)}): set PTUNE_CACHE to a folder that can."
            ) from error
    if found is None:
        raise InputError(f"the cache's entry {target} cannot be read; set PTUNE_CACHE to another folder.")
    return found


def in_memory(blocks: arrow.Blocks) -> "Dataset":
    """The rows of `blocks` as a Dataset that is not on disk, with the digest of their content as its fingerprint."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    tables = [arrow.table_of(block) for block in blocks if block]
    table = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    made = Dataset(InMemoryTable(table), fingerprint="0")
    return Dataset(made.data, fingerprint=digest(made))


def _loaded(target: Path) -> "Dataset | None":
    """The entry, or None where a file of it is missing or damaged."""
    try:
        entry = json.loads((target / ENTRY).read_text())
        if content(target / FILE) == entry["content"]:  # pyarrow would read another bit, or crash
            return _mapped(target / FILE, entry["fingerprint"])
    except Exception:  # what datasets and pyarrow raise for a damaged file has no common base
        pass
    return None


def _mapped(file: Path, fingerprint: str) -> "Dataset":
    from datasets import Dataset
    from datasets.table import MemoryMappedTable

    return Dataset(MemoryMappedTable.from_file(str(file)), fingerprint=fingerprint)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Hold the lock of an entry, and clear away what processes that were killed have left of it.

    On a file system without locks each process makes the entry, and one of them names it.
    """
    from filelock import FileLock, Timeout

    locks = folder() / LOCKS
    locks.mkdir(exist_ok=True)
    lock = FileLock(locks / f"{name}.lock")
    try:
        try:
            lock.acquire(timeout=1)
        except Timeout:
            note(f"another process makes {folder() / name}, this one waits for it")
            lock.acquire(poll_interval=0.5)
    except NotImplementedError:
        yield
        return
    try:
        for left in folder().glob(f".{name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


def _make(target: Path, blocks: arrow.Blocks) -> None:
    """Make the entry `target` whole or not at all."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=folder()))
    try:
        made = temporary / "made"
        made.mkdir()
        arrow.write(made / FILE, blocks)
        entry = {"content": content(made / FILE), "fingerprint": digest(_mapped(made / FILE, "0"))}
        (made / ENTRY).write_text(json.dumps(entry))
        if os.path.lexists(target) and _loaded(target) is None:
            os.rename(target, temporary / "damaged")
        try:
            os.rename(made, target)
        except OSError:
            if _loaded(target) is None:  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _shown(blocks: arrow.Blocks, what: str, total: int | None) -> arrow.Blocks:
    """The blocks, with a bar in a terminal when a second is over."""
    from datasets.utils import tqdm

    with tqdm(desc=what, total=total, unit=" rows", disable=None, delay=1) as bar:
        for block in blocks:
            yield block
            bar.update(len(block))
