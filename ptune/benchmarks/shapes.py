"""Random backbones of a chosen shape, so that speed is measured without any checkpoint: weights do not change it."""

import string
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizer

from ptune.tasks import toy

MINILM_L6 = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
"""Sizes of all-MiniLM-L6 (12 heads of 32, as `HEAD` says), which is the default of every part."""
HEAD = 32
"""Width of an attention head."""
VOCABULARY = 30522
"""Words of BERT's vocabulary."""
WORDS = ("the", "film", "was", "fine", "but", "slow", "and", "nobody", "would", "see", "such", "nonsense", "twice")
"""Words of texts whose length alone matters."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def random_bert(folder: Path, **sizes: int) -> str:
    """Write a BERT with random weights, and a WordPiece tokenizer of WORDS and the toy tasks' words, into `folder`.

    Other words are spelled in letters, so a benchmark on other texts needs a real tokenizer.

    Args:
        folder: where; it is made.
        sizes: sizes of a BertConfig that differ from those of MiniLM-L6.

    Returns:
        The folder, as the name of a backbone.
    """
    shape: dict[str, Any] = MINILM_L6 | sizes
    letters = [f"{before}{letter}" for before in ("", "##") for letter in string.ascii_lowercase + string.digits]
    words = [*WORDS, "by", "who", "did", "do", "it", "to", *toy.PEOPLE, *toy.VERBS, *toy.ADJECTIVES]
    known = dict.fromkeys([*SPECIAL, *letters, *words, *string.punctuation])
    tokens = [*known, *(f"[unused{i}]" for i in range(VOCABULARY - len(known)))]
    config = BertConfig(vocab_size=VOCABULARY, num_attention_heads=shape["hidden_size"] // HEAD, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab={token: code for code, token in enumerate(tokens)}).save_pretrained(folder)
    return str(folder)
