"""A small file cannot fill the memory; a large one, and a small one of repeated rows, are read."""

import gzip
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ptune.data import limits
from ptune.data.local import read_file
from ptune.errors import InputError

ROW = b'{"text": "the nurse helped the pilot", "label": 1}\n'


@pytest.mark.parametrize("contents", [b"\n", b" ", b"[", ROW], ids=["lines", "line", "lists", "rows"])
def test_a_gzipped_file_that_holds_a_hundred_times_its_size_stops_before_it_is_whole(contents, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FREE", 2**20)
    file = tmp_path / "train.jsonl.gz"
    file.write_bytes(gzip.compress(contents * (2**25 // len(contents))))
    with pytest.raises(InputError, match=r"train.jsonl.gz: its [\d,]+ bytes hold more than 100 times .*gunzip"):
        assert read_file(file).rows
    with limits.decompressed(file) as data, pytest.raises(InputError):
        data.read()
    assert data.raw.read_so_far < 100 * file.stat().st_size + 2**20


def test_below_the_limit_rows_may_repeat(tmp_path):
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(ROW * 10_000))
    assert len(read_file(tmp_path / "train.jsonl.gz").rows) == 10_000


def test_contents_are_what_gzip_reads_and_a_torn_file_is_its_error(tmp_path):
    data = b"".join(b"%d\n" % i for i in range(10_000))
    (tmp_path / "a.gz").write_bytes(gzip.compress(data))
    with limits.decompressed(tmp_path / "a.gz") as stream:
        assert list(stream) == data.splitlines(True)
    (tmp_path / "b.gz").write_bytes(gzip.compress(data)[:2000])
    with limits.decompressed(tmp_path / "b.gz") as stream, pytest.raises((EOFError, OSError, zlib.error)):
        stream.read()


def test_parquet_of_more_rows_than_bytes_is_refused_before_a_row_is_read(tmp_path, monkeypatch):
    pq.write_table(pa.table({"text": pa.nulls(2_000_000, pa.string())}), tmp_path / "train.parquet")
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_: pytest.fail("rows are read"))
    with pytest.raises(InputError, match=r"train.parquet: has 2,000,000 rows in [\d,]+ bytes, .* without compression"):
        assert read_file(tmp_path / "train.parquet").rows


@pytest.mark.parametrize("encoded", [False, True])
def test_parquet_of_one_long_text_in_many_rows_is_refused(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "FREE", 2**20)
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), ["a" * 2000])
    pq.write_table(pa.table({"text": texts if encoded else texts.dictionary_decode()}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"train.parquet: its [\d,]+ bytes hold more than 100 times as many"):
        assert read_file(tmp_path / "train.parquet").rows


def test_json_of_brackets_alone_is_refused_and_one_of_rows_is_not():
    with pytest.raises(InputError, match=r"here: 1,500,000 lists and objects in 4,500,000 letters"):
        limits.check_lists("here", "[]," * 1_500_000)
    limits.check_lists("here", '{"a":"x","y":0},' * 1_500_000)
