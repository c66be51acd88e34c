"""A disk that is full, read-only or gone while a command writes, told in one sentence."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptune.errors import InputError

OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
"""No room, no more quota, a file beyond the limit, read-only, an error of the device, a server that lost the file."""


@contextmanager
def told(place: str | Path, fix: str) -> Iterator[None]:
    """Turn the OSError of a place that cannot be written into an InputError; any other error passes through.

    Args:
        place: the file or folder that the work inside writes.
        fix: the end of the sentence, what the user can do.
    """
    try:
        yield
    except OSError as error:
        if not _of_disk(error, Path(place)):
            raise
        raise InputError(f"{str(place)!r} cannot be written ({error.strerror}); {fix}") from error


def _of_disk(error: OSError, place: Path) -> bool:
    if error.errno in OF_DISK:
        return True
    named = Path(os.path.abspath(os.fsdecode(error.filename))) if isinstance(error.filename, str | bytes) else None
    inside = named is not None and named.is_relative_to(os.path.abspath(place))
    kinds = FileNotFoundError | FileExistsError | PermissionError | NotADirectoryError
    return isinstance(error, kinds) and inside
