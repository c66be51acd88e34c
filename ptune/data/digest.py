"""A digest of tokenized rows, by which a resumed run knows the data that it was trained on."""

import hashlib
import json
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

BLOCK = 10_000
"""Number of rows that are read at a time."""


def digest(items: "Dataset") -> str:
    """The digest of all columns of all rows in their order, wherever and in whatever blocks they are stored."""
    import pyarrow as pa

    found = hashlib.sha256(json.dumps(sorted(items.column_names)).encode())
    for block in items.with_format("arrow").iter(BLOCK):
        for name in sorted(block.column_names):  # type: ignore[union-attr]
            column = block[name]  # type: ignore[index]
            if pa.types.is_binary(column.type):  # in its chunks, which together may be larger than an array can be
                for value in chain.from_iterable(column.chunks):
                    found.update(len(buffer := value.as_buffer()).to_bytes(8, "little"))
                    found.update(buffer)
            else:
                _add(found, column.combine_chunks())
    return found.hexdigest()[:32]


def _add(found: Any, values: Any) -> None:
    """Add the values of an Arrow array: of lists, their lengths and what they hold."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _add(found, pc.fill_null(pc.call_function("list_value_length", [values]), -1))
        _add(found, values.flatten())
    elif pa.types.is_integer(kind) and not values.null_count:
        found.update(values.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    else:
        found.update(json.dumps(values.to_pylist(), default=str).encode())
