"""A causal language model tuned on other text by a prefix in every layer, read with its own head; no Lightning.

    python experiments/causal.py DATA BACKBONE

DATA is a folder with train.jsonl(.gz) and validation.jsonl(.gz) of `text`; BACKBONE a causal language model. Prints the
mean loss of the next token on held-out text without a prompt and after tuning, and what was trained.
"""

import sys
import time
from itertools import islice
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import AutoTokenizer

import ptune
from ptune.data.local import find, read_file

TOKENS, BATCH, STEPS, LENGTH = 128, 16, 600, 20
SPLITS = {"train": STEPS * BATCH, "validation": 400}
"""Texts of each split that are used."""


def blocks(tokenizer, path, count):
    """The first `count` blocks of TOKENS tokens of the texts, each text from its beginning."""
    ids = (tokenizer(row["text"])["input_ids"][:TOKENS] for row in read_file(path).rows)
    return torch.tensor(list(islice((row for row in ids if len(row) == TOKENS), count)))


def loss(backbone, ids, prefix=None):
    """Mean loss of the next token of every text but its first."""
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    hidden = backbone(batch, None if prefix is None else ptune.Prompts(prefix=prefix()))
    return F.cross_entropy(backbone.lm_scores(hidden[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


@torch.no_grad()
def measure(backbone, ids, prefix=None):
    """The mean over all texts."""
    return torch.stack([loss(backbone, rows, prefix) for rows in ids.split(BATCH)]).mean().item()


def main(data: str, name: str) -> None:
    """Measure, tune, measure."""
    torch.manual_seed(11)
    tokenizer = AutoTokenizer.from_pretrained(name)
    backbone = ptune.Backbone(name, lm=True).requires_grad_(False)
    train, held_out = (blocks(tokenizer, find(Path(data), split), count) for split, count in SPLITS.items())
    spec = backbone.spec
    prefix = ptune.PrefixEncoder(LENGTH, spec.kv_sizes)
    optimizer = torch.optim.AdamW(prefix.parameters(), lr=3e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    before, start = measure(backbone, held_out), time.perf_counter()
    for rows in train[torch.randperm(len(train))][: STEPS * BATCH].split(BATCH):
        optimizer.zero_grad()
        loss(backbone, rows, prefix).backward()
        optimizer.step()
        schedule.step()
    seconds, after = time.perf_counter() - start, measure(backbone, held_out, prefix)
    trained = sum(value.numel() for value in prefix.parameters())
    print(f"held-out loss {before:.3f} before, {after:.3f} after {STEPS} steps of {BATCH} texts ({seconds:.0f} s)")
    print(f"{trained:,} trained parameters of {sum(v.numel() for v in backbone.parameters()):,} in the backbone")


if __name__ == "__main__":
    main(*sys.argv[1:])
