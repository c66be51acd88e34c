"""CPU seconds of parts of a training step, side by side in one process.

    python experiments/step_parts.py [TOKENS ...]

P-Tuning v2 on a random BERT of MiniLM's shape, 32 texts of 16 and of 64 tokens: the prefix's dropout as it is and as a
copy of the prefix for every text, as it was; and 16 bits, under autocast with weights that are cast once or in every
step, or with a backbone in bf16; and a last layer that is computed for all tokens, not for the one that the head reads
(`ptune/backbone/last_layer.py`). Rounds go over all cases in turn. What is printed are medians over the rounds of each
case's CPU time as a part of that of the plain step (fp32, no dropout) in the same round.
"""

import sys
import tempfile
import time
from contextlib import nullcontext
from statistics import median

import torch
from torch.nn import functional as F
from transformers import BertConfig, BertModel, BertTokenizer

import ptune
from ptune.backbone.casts import CLASSES
from ptune.prompts import Prompts
from ptune.tasks.spec import HeadSpec

ROUNDS, ROWS, WORDS, RATE = 13, 32, 1000, 0.1


def minilm() -> str:
    """The folder of a random BERT with MiniLM's 6 layers of width 384."""
    folder = tempfile.mkdtemp()
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    BertModel(BertConfig(vocab_size=WORDS, **sizes)).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(WORDS - 5))]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return folder


def copied(model: ptune.PTuningV2, batch: dict) -> Prompts:
    """Prompts as they were: the whole table once a text, through torch's dropout."""
    encoder = model.prompt.encoder
    table = F.dropout(encoder.table().expand(len(batch["input_ids"]), -1, -1), RATE)
    layers = zip(table.split(encoder.features, dim=2), encoder.kv_sizes, strict=True)
    prefix = tuple(layer.unflatten(2, (2, *size)).permute(2, 0, 3, 1, 4) for layer, size in layers)
    return Prompts(prefix=prefix, layers=model.layers)


def main(*lengths: str) -> None:
    """Warm up, measure, print."""
    torch.manual_seed(0)
    backbone, head = minilm(), HeadSpec("step", "classify", ("no", "yes"), ("accuracy",), "accuracy")
    models, bf16 = {}, ("autocast, weights cast once", "autocast, weights cast in every step")
    whole = "last layer for all tokens"
    for name in ("plain", "dropout", "dropout, copies", *bf16, "backbone_dtype bf16", whole):
        options = {"prefix_dropout": RATE if "dropout" in name else 0.0}
        options |= {"backbone_dtype": "bf16"} if name.startswith("backbone") else {}
        model = ptune.PTuningV2(backbone=backbone, head=head, **options)
        model.configure_model()
        models[name] = model.train(), torch.optim.AdamW(model.trained().values(), lr=1e-5)
    models[whole][0].backbone.reads_part = False
    first = models["dropout, copies"][0]
    first.prompts = lambda batch: copied(first, batch)
    original = {kept: plain for plain, kept in CLASSES.items()}
    for module in models[bf16[1]][0].modules():
        module.__class__ = original.get(type(module), type(module))
    for t in map(int, lengths or ("16", "64")):
        mask = torch.ones(ROWS, t, dtype=torch.long)
        mask[::2, -2:] = 0
        ids, labels = torch.randint(5, WORDS, (ROWS, t)), torch.randint(2, (ROWS,))
        batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}
        seconds: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(ROUNDS + 1):
            for name, (model, optimizer) in models.items():
                start = time.process_time()
                with torch.autocast("cpu", torch.bfloat16) if name in bf16 else nullcontext():
                    total, count = model.head.loss(model(batch), batch)
                (total / count).backward()
                optimizer.step()
                optimizer.zero_grad()
                if turn:  # the first is to warm up
                    seconds[name].append(time.process_time() - start)
        for name, values in seconds.items():
            parts = sorted(a / b for a, b in zip(values, seconds["plain"], strict=True))
            low, high = parts[len(parts) // 4], parts[-1 - len(parts) // 4]
            print(f"{t} tokens  {name:<38}{median(parts):6.2f}  ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
