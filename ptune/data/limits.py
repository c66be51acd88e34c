"""How large a data file may become in memory: a small file must not fill it.

Real text shrinks to a fifth by gzip and generated rows to a thirtieth; a file made to fill the memory, to a thousandth.
Whoever trusts a file that is beyond a limit decompresses it, or saves it again without compression: a file as it lies
on the disk has no limit.
"""

import gzip
import io
from pathlib import Path
from typing import Any, final

from ptune.errors import InputError

RATIO = 100
"""Largest size of what a compressed file holds, relative to the file."""
FREE = 32 * 2**20
"""Bytes that any file may hold."""
ROWS = 1_000_000
"""Rows that any Parquet file may have; a larger one has fewer rows than bytes."""
LISTS = 1_000_000
"""Lists and objects that any JSON text may have; a larger one has fewer than one in 8 bytes."""


@final
class Decompressed(io.RawIOBase):
    """The bytes of a gzipped file; reading raises InputError beyond the limit.

    Args:
        file: the file; OSError, EOFError or zlib.error where it is damaged.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.data, self.read_so_far = file, gzip.GzipFile(file), 0

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into the buffer; how many there are."""
        count = self.data.readinto(buffer)
        self.read_so_far += count
        check_size(self.file, self.read_so_far)
        return count

    def close(self) -> None:
        """Close the file."""
        self.data.close()
        super().close()


def decompressed(file: Path) -> io.BufferedReader:
    """The contents of a gzipped file, which may be read line by line; an InputError beyond the limit."""
    return io.BufferedReader(Decompressed(file), 2**16)


def check_size(file: Path, size: int) -> None:
    """Raise InputError where so many bytes from a compressed file are beyond the limit."""
    if size <= FREE:
        return
    on_disk = file.stat().st_size
    if size > RATIO * on_disk:
        raise InputError(
            f"{file}: its {on_disk:,} bytes hold more than {RATIO} times as many, which could fill the memory; if you "
            "trust the file, decompress it (gunzip) or save it again without compression."
        )


def check_rows(file: Path, rows: int) -> None:
    """Raise InputError where so many rows of a Parquet file are beyond the limit."""
    on_disk = file.stat().st_size
    if rows > max(ROWS, on_disk):
        raise InputError(
            f"{file}: has {rows:,} rows in {on_disk:,} bytes, which could fill the memory; if you trust the file, save "
            "it again without compression."
        )


def check_block(file: Path, block: Any, before: int = 0) -> int:
    """Bytes of a block of Arrow's rows and of those `before`; an InputError beyond the limit."""
    columns = [column.dictionary_decode() if hasattr(column, "dictionary") else column for column in block.columns]
    size = before + sum(column.nbytes for column in columns)
    check_size(file, size)
    return size


def check_lists(place: str, text: str) -> None:
    """Raise InputError where a JSON text is little but brackets: each list takes 60 bytes in memory, an object 200."""
    count = text.count("[") + text.count("{")
    if count > max(LISTS, len(text) // 8):
        raise InputError(f"{place}: {count:,} lists and objects in {len(text):,} letters could fill the memory.")
