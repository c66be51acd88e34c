"""Rows a second of `ptune.load(...)` against transformers' pipeline and a plain loop, at one batch size.

    python experiments/bench_predict.py [ROWS] [BATCH]

All three answer with one model: MiniLM with its pooler and a linear head, whose weights a ptune probe and a
BertForSequenceClassification share. Two mixes of texts are drawn by a seed: many short ones beside few long ones (3 to
120 words, 27 in the mean), and all lengths alike (3 to 87 words, 45 in the mean). Each is measured in this process by
CPU time with one thread, the best of two after a warm-up, so that the ratios hold on a busy machine, too. The loop is
what a careful user writes: DataCollatorWithPadding over the texts in their order. Measured with 256 texts in batches
of 32: the pipeline takes 2.6 times ptune's time on the first mix and 1.55 times on the second, the loop 2.6 and 1.64.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import transformers
from torch.utils.data import DataLoader

import ptune
from ptune.backbone.pretrained import MINILM, locate

WORDS = ("the", "film", "was", "fine", "but", "slow", "and", "nobody", "would", "see", "such", "nonsense", "twice")


MIXES: dict[str, Callable[[random.Random], int]] = {
    "many short, few long": lambda draw: min(120, 3 + int(draw.expovariate(1 / 25))),
    "all lengths alike": lambda draw: draw.randint(3, 87),
}
"""The words of a text, drawn."""


def texts(rows: int, mix: str) -> list[str]:
    """Texts of mixed length."""
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=MIXES[mix](draw))) for _ in range(rows)]


def seconds(work: Callable[[], list[dict]]) -> tuple[float, list[dict]]:
    """CPU seconds of the best of two calls, and the answers."""
    found, best = work(), float("inf")
    for _ in range(2):
        start = time.process_time()
        found = work()
        best = min(best, time.process_time() - start)
    return best, found


def main(rows: int = 384, batch: int = 32) -> None:
    """Print the rates and check that the answers are the same."""
    torch.set_num_threads(1)  # CPU time then counts no waiting threads
    transformers.utils.logging.set_verbosity_error()
    place, names = locate(MINILM), ("no", "yes", "maybe")
    data = ptune.Classification(ptune.TaskSpec(text=("text",), labels=names), MINILM)
    torch.manual_seed(1)
    model = ptune.LinearProbe(backbone=MINILM, head=data.head, pool="pooler")
    model.configure_model()
    model.check_data(data)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        place, num_labels=3, id2label=dict(enumerate(names))
    ).eval()
    theirs.classifier.load_state_dict(model.head.linear.state_dict())
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    with tempfile.TemporaryDirectory() as folder:
        model.save_prompts(Path(folder, "prompts.safetensors"))
        asked = ptune.load(Path(folder, "prompts.safetensors"), device="cpu", batch_size=batch)
    pipeline = transformers.pipeline("text-classification", model=theirs, tokenizer=tokenizer, device="cpu")
    limits = {"truncation": True, "max_length": data.max_length}

    def loop(given: list[str]) -> list[dict]:
        encoded = [tokenizer(text, **limits) for text in given]
        loader = DataLoader(encoded, batch, collate_fn=transformers.DataCollatorWithPadding(tokenizer))  # type: ignore[arg-type]
        with torch.inference_mode():
            scores = torch.cat([theirs(**part).logits.softmax(-1) for part in loader])
        return [{"label": names[row.argmax()], "score": row.max().item()} for row in scores]

    contenders = {
        "ptune": asked,
        "pipeline": lambda given: pipeline(given, batch_size=batch, **limits),
        "DataCollatorWithPadding": loop,
    }
    for mix in MIXES:
        given, times, expected = texts(rows, mix), {}, None
        print(f"{rows} texts in batches of {batch}, {mix}")
        for name, work in contenders.items():
            times[name], found = seconds(partial(work, given))
            expected = expected or found
            for ours, other in zip(expected, found, strict=True):
                assert ours["label"] == other["label"], (ours, other)
                assert abs(ours["score"] - other["score"]) < 1e-5, (ours, other)
            rate, ratio = rows / times[name], times[name] / times["ptune"]
            print(f"{name:<24}{rate:>8.0f} rows/s of CPU time{ratio:>8.2f}x ptune's time")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
