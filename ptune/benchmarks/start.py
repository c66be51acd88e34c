"""A process that measures what a run waits for its data: `python -m ptune.benchmarks.start KIND FOLDER BACKBONE`."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ptune.benchmarks.resident import largest

LABELS, TEXTS = ("no", "yes"), ("a", "b")


def ptune_alone(folder: Path, backbone: str) -> None:
    """What a run does before its first step, up to the first batch and the majority."""
    from ptune.data.classification import Classification
    from ptune.tasks.spec import TaskSpec

    data = Classification(TaskSpec("bench", text=TEXTS, labels=LABELS), backbone, path=str(folder))
    data.setup("fit")
    next(iter(data.train_dataloader()))
    data.majority("validation")


def datasets_alone(folder: Path, backbone: str) -> None:
    """The same rows by `datasets`, as its documentation has it: read, tokenized by `map`, and one batch of them."""
    import datasets

    from ptune.backbone.tokenizer import load

    splits = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation")}
    loaded = datasets.load_dataset("json", data_files=splits)
    tokenizer = load(backbone)

    def tokenize(rows):
        return tokenizer(*(rows[text] for text in TEXTS), truncation=True, max_length=128, return_attention_mask=False)

    items = loaded.map(tokenize, batched=True, remove_columns=list(TEXTS))
    items["train"][list(range(min(32, len(items["train"]))))]


KINDS: Mapping[str, Callable[[Path, str], None]] = {"ptune": ptune_alone, "datasets": datasets_alone}


def main(kind: str, folder: str, backbone: str) -> None:
    """Print seconds and CPU seconds beyond the imports, those of the imports, and the largest memory in MiB."""
    start, cpu = time.perf_counter(), time.process_time()
    import datasets
    import lightning.pytorch.cli  # noqa: F401

    import ptune.data.classification  # noqa: F401

    imported, imported_cpu = time.perf_counter(), time.process_time()
    datasets.disable_progress_bars()
    KINDS[kind](Path(folder), backbone)
    found = {
        "imports": imported - start,
        "imports_cpu": imported_cpu - cpu,
        "seconds": time.perf_counter() - imported,
        "cpu": time.process_time() - imported_cpu,
        "mib": largest() / 2**20,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
