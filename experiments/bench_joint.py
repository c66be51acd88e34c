"""CPU seconds of a training step of T trials together, one pass of the backbone for all, against a step of each alone.

    python experiments/bench_joint.py [--rounds 9] [--batch 32] [--tokens 16 64] [--methods PTuningV2 LinearProbe]

MiniLM with T trials of PTuningV2 (length 20) or of LinearProbe that differ in their seeds: each has its own batch,
prefix, head and AdamW. Together, the backbone reads the T batches as one, each row with its own
trial's prefix, and one backward pass serves all. All T trials of either way share the backbone in memory, so that what
is compared is the arithmetic alone. The two take turns in one process with one thread; printed are the medians of the
CPU time of a trial and of the ratio of each round. The last columns are the largest gradient, and the largest
difference of a gradient between the two ways, without dropout.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

import ptune
from ptune.backbone.pretrained import MINILM
from ptune.heads import Batch
from ptune.serving.bank import stacked, together
from ptune.tuning.tuner import PromptTuner

TRIALS = (1, 2, 4, 8)
METHODS: dict[str, dict] = {"PTuningV2": {"length": 20}, "LinearProbe": {}}


def models(method: str, count: int) -> list[PromptTuner]:
    """Trials in train mode, which share one backbone."""
    data = ptune.Classification(ptune.TaskSpec(text=("text",), labels=("no", "yes")), MINILM)
    found: list[PromptTuner] = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = getattr(ptune, method)(backbone=MINILM, head=data.head, **METHODS[method])
        model.backbone = found[0].backbone if found else None
        model.configure_model()
        found.append(model.train())
    return found


def loss(model: PromptTuner, scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The mean loss of a batch."""
    total, count = model.head.loss(scores, batch)
    return total / count


def alone(trials: list[PromptTuner], batches: list[Batch]) -> None:
    """Forward and backward pass of one trial after the other."""
    for model, batch in zip(trials, batches, strict=True):
        loss(model, model(batch), batch).backward()


def jointly(trials: list[PromptTuner], batches: list[Batch]) -> None:
    """One forward and one backward pass of all trials."""
    prompts = [model.prompts(batch) or ptune.Prompts() for model, batch in zip(trials, batches, strict=True)]
    sizes = [len(batch["input_ids"]) for batch in batches]
    joined = stacked(prompts, sizes)
    if prompts[0].kept is not None:  # dropout, which only training has
        layers = zip(*(one.kept for one in prompts), strict=True)  # type: ignore[arg-type]
        joined = replace(joined, kept=tuple(torch.cat(layer, dim=1) for layer in layers))
    hidden = trials[0].backbone(together(batches), joined).split(sizes)
    losses = [
        loss(model, model.head(states, batch, model.backbone), batch)
        for model, states, batch in zip(trials, hidden, batches, strict=True)
    ]
    torch.stack(losses).sum().backward()


def difference(trials: list[PromptTuner], batches: list[Batch]) -> tuple[float, float]:
    """The largest gradient, and the largest difference of one between the two ways, without dropout."""
    found = []
    for way in (alone, jointly):
        for model in trials:
            model.eval()
            model.zero_grad()
        way(trials, batches)
        found.append(torch.cat([value.grad.flatten() for model in trials for value in model.trained().values()]))
    for model in trials:
        model.train()
        model.zero_grad()
    return found[0].abs().max().item(), (found[0] - found[1]).abs().max().item()


def seconds(way: Callable, trials: list[PromptTuner], batches: list[Batch], steppers: list) -> float:
    """CPU seconds of a step of each trial, over their number."""
    start = time.process_time()
    way(trials, batches)
    for optimizer in steppers:
        optimizer.step()
        optimizer.zero_grad()
    return (time.process_time() - start) / len(trials)


def main() -> None:
    """Print a line for each method, number of tokens and number of trials."""
    parser = argparse.ArgumentParser(description="Time a step of trials together against a step of each alone.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS))
    asked = parser.parse_args()
    torch.set_num_threads(1)  # CPU time then counts no waiting threads
    print("method       tokens  trials   alone, ms  jointly, ms   alone/jointly (quartiles)   gradient  difference")
    for method in asked.methods:
        everyone = models(method, max(TRIALS))
        steppers = [torch.optim.AdamW(model.trained().values(), lr=1e-4) for model in everyone]
        for tokens in asked.tokens:
            batches = [batch_of(asked.batch, tokens) for _ in everyone]
            for count in TRIALS:
                given = everyone[:count], batches[:count]
                size, apart = difference(*given)
                times = []
                for turn in range(asked.rounds + 1):
                    pair = [seconds(way, *given, steppers[:count]) for way in (alone, jointly)]
                    if turn:  # the first one warms up
                        times.append(pair)
                ratios = sorted(one / joint for one, joint in times)
                middle, low, high = median(ratios), ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
                one, joint = (1000 * median(column) for column in zip(*times, strict=True))
                print(
                    f"{method:<12} {tokens:>6} {count:>7} {one:>11.1f} {joint:>12.1f} {middle:>15.3f} "
                    f"({low:.3f} to {high:.3f}) {size:>9.1e} {apart:>11.1e}",
                    flush=True,
                )


def batch_of(rows: int, tokens: int) -> Batch:
    """A batch of random texts of one length."""
    ids = torch.randint(1000, 20_000, (rows, tokens))
    columns = {"attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {"input_ids": ids, "labels": torch.randint(2, (rows,))} | columns


if __name__ == "__main__":
    main()
