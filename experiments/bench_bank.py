"""Seconds of a batch whose rows have the prompts of 8 tasks, against a batch of one task.

    python experiments/bench_bank.py [ROUNDS]

MiniLM with 8 random prefixes of 20 vectors, each with the head of its own task of two labels; 64 texts of 20 to 60
words in batches of 32. The two take turns in one process with one thread; printed is the median of their CPU seconds
and of the ratio of each round. The last line compares all scores with those of each prompt alone.
"""

import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

import ptune
from ptune.backbone.pretrained import MINILM

TASKS, ROWS, BATCH = 8, 64, 32
WORDS = ("the", "film", "was", "fine", "but", "slow", "and", "nobody", "would", "see", "such", "nonsense", "twice")


def prompts(folder: Path) -> dict[str, Path]:
    """A saved prefix for each of the tasks."""
    data = ptune.Classification(ptune.TaskSpec(text=("text",), labels=("no", "yes")), MINILM)
    files = {}
    for i in range(TASKS):
        model = ptune.PTuningV2(backbone=MINILM, head=data.head, length=20)
        model.configure_model()
        for value in model.trained().values():
            torch.nn.init.normal_(value.data, std=0.2)
        model.check_data(data)
        files[f"task{i}"] = folder / f"task{i}.safetensors"
        model.save_prompts(files[f"task{i}"])
    return files


def main(rounds: int = 7) -> None:
    """Print the medians and the largest difference of a score."""
    torch.set_num_threads(1)  # CPU time then counts no waiting threads
    torch.manual_seed(1)
    draw = random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(20, 60))) for _ in range(ROWS)]
    with tempfile.TemporaryDirectory() as folder:
        bank = ptune.PromptBank(prompts(Path(folder)), device="cpu", batch_size=BATCH)
    names = list(bank.prompts)
    mixes = {"one task": [names[0]] * ROWS, "8 tasks": [names[i % TASKS] for i in range(ROWS)]}
    checked = [bank.of(names[0]).checked(text) for text in texts]
    times: dict[str, list[float]] = {mix: [] for mix in mixes}
    for turn in range(rounds + 1):
        for mix, owners in mixes.items():
            start = time.process_time()
            list(bank.scored(owners, checked))
            if turn:  # the first one warms up
                times[mix].append(time.process_time() - start)
    for mix, seconds in times.items():
        print(f"{mix:<10}{median(seconds):8.3f} s of CPU time for {ROWS} rows")
    ratios = [many / one for one, many in zip(*times.values(), strict=True)]
    print(f"ratio     {median(ratios):8.3f}   ({min(ratios):.3f} to {max(ratios):.3f} in {rounds} rounds)")
    worst = 0.0
    for name, numbers, _, scores in bank.scored(mixes["8 tasks"], checked):
        for i, row in zip(numbers, scores, strict=True):
            ((_, _, alone),) = bank.of(name).scored([checked[i]])
            worst = max(worst, (alone[0] - row).abs().max().item())
    print(f"largest difference of a score from that of the row alone: {worst:.1e}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
