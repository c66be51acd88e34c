"""Rows in an Arrow file that is written some rows at a time, whatever types come later."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Blocks = Iterable[list[dict]]
"""Rows, some at a time, so that they are never all in memory; those of a block have the same columns."""


def write(file: Path, blocks: Blocks) -> None:
    """Write rows into an Arrow file, in the stream format.

    A block may have wider types than those before it, such as its first list with items; what is written is then
    written anew.
    """
    import pyarrow as pa

    tables = map(table_of, filter(None, blocks))
    first = next(tables, pa.table({}))
    schema, writer = first.schema, pa.ipc.new_stream(file, first.schema)
    try:
        for table in chain([first], tables):
            if table.schema != schema:
                table = _as_wide(table, schema)
            if table.schema != schema:
                writer.close()
                schema, writer = table.schema, _widened(file, table.schema)
            writer.write_table(table)
    finally:
        writer.close()


def _as_wide(table: "pa.Table", schema: "pa.Schema") -> "pa.Table":
    """The table with columns of `schema`, or of wider types where it has such."""
    import pyarrow as pa

    return pa.concat_tables([schema.empty_table(), table], promote_options="permissive")


def _widened(file: Path, schema: "pa.Schema") -> Any:
    """A writer of a file with this schema, into which the rows that the file holds are written first."""
    import pyarrow as pa

    before = file.rename(file.with_suffix(".before"))
    writer = pa.ipc.new_stream(file, schema)
    with pa.memory_map(str(before)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            writer.write_table(_as_wide(pa.Table.from_batches([batch]), schema))
    before.unlink()
    return writer


def table_of(block: list[dict]) -> "pa.Table":
    """A table of rows, whose whole numbers take 32 bits where they fit."""
    import pyarrow as pa

    table = pa.Table.from_pylist(block)
    columns = []
    for column in table.columns:
        try:
            columns.append(column.cast(_narrow(column.type)))
        except pa.ArrowInvalid:  # a number beyond 32 bits
            columns.append(column)
    return pa.table(columns, table.column_names)


def _narrow(kind: "pa.DataType") -> "pa.DataType":
    import pyarrow as pa

    if pa.types.is_list(kind):
        return pa.list_(_narrow(kind.value_type))
    return pa.int32() if pa.types.is_int64(kind) else kind
