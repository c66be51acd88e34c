"""A cache of its own for what a measurement makes, so that none finds the work done, and none leaves any behind."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

PLACE = "PTUNE_CACHE"
"""The environment variable that names ptune's cache."""


@contextmanager
def fresh_cache() -> Iterator[None]:
    """An empty folder is ptune's cache within the block."""
    before = os.environ.get(PLACE)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[PLACE] = folder
        try:
            yield
        finally:
            del os.environ[PLACE]
            if before is not None:
                os.environ[PLACE] = before
