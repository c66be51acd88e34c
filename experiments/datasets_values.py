"""What the json and csv builders of `datasets` make of values, and its cache of changed files, beside ptune's readers.

    python experiments/datasets_values.py

A line a file: what is in it, then the rows that each of the two reads. It is why ptune reads files itself.
"""

import os
import tempfile
from pathlib import Path

FILES = {
    "dates.jsonl": '{"a": "2020-01-01"}\n{"a": "2021-02-03"}\n',
    "1 beside 1.5.jsonl": '{"a": 1}\n{"a": 1.5}\n',
    "a large whole number.jsonl": '{"a": 12345678901234567890}\n{"a": 1}\n',
    "a column that is not there.jsonl": '{"a": 1, "b": 2}\n{"a": 3}\n',
    "leading zeros.csv": "a,b\nx,007\ny,1\n",
    "2.50.csv": "a,b\nx,2.50\ny,1\n",
    "the word None.csv": "a,b\nx,None\ny,NA\n",
    "a short line.csv": "a,b\nx\ny,1\n",
}


def theirs(file: Path) -> list[dict]:
    """The rows that `datasets` reads."""
    kind = {".jsonl": "json"}.get(file.suffix, "csv")
    return list(datasets.load_dataset(kind, data_files=str(file), split="train"))


def ours(file: Path) -> object:
    """The rows that ptune reads, or its sentence."""
    try:
        return [row for _, row in read_file(file).read()]
    except InputError as error:
        return str(error)


def main(folder: Path) -> None:
    """Print what is read of each file, and of a file whose content changes while its time and size do not."""
    for name, text in FILES.items():
        file = folder / name
        file.write_text(text)
        print(repr(text), f"  datasets: {theirs(file)}", f"  ptune:    {ours(file)}", sep="\n")
    file = folder / "changed.jsonl"
    file.write_text('{"a": "old"}\n')
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    theirs(file)
    file.write_text('{"a": "new"}\n')
    os.utime(file, ns=times)
    print("a file that is read, then holds 'new' at its old time", f"  datasets: {theirs(file)}", sep="\n")
    print(f"  ptune:    {ours(file)}")
    loaded = datasets.load_dataset("json", data_files=str(file), split="train")
    cached = Path(loaded.cache_files[0]["filename"])
    cached.write_bytes(cached.read_bytes().replace(b"old", b"xxx"))
    print("its cached file holds 'xxx'", f"  datasets: {theirs(file)}", sep="\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        os.environ |= {"HF_DATASETS_CACHE": f"{temporary}/cache", "HF_HUB_OFFLINE": "1"}  # read when it is imported
        import datasets

        from ptune.data.local import read_file
        from ptune.errors import InputError

        datasets.disable_progress_bars()
        main(Path(temporary))
