"""The backbone's tokenizer, and what padding and prompt slots need to know about it."""

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ptune.errors import InputError
from ptune.pretrained import locate


def load(backbone: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a backbone; one without a padding token pads with its end token (which is masked).

    Raises:
        InputError: there is none.
    """
    place = locate(backbone)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, KeyError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise InputError(
            f"backbone {backbone!r}: no tokenizer can be loaded from it ({reason}); when offline, give a local folder."
        ) from e
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes up where the files are missing
        raise InputError(f"backbone {backbone!r}: {place} holds no tokenizer; save it beside the model.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def text_start(tokenizer: PreTrainedTokenizerBase) -> int:
    """1 where the tokenizer puts a special token in front of a text ([CLS], <s>), else 0."""
    ids = tokenizer("a")["input_ids"]
    return int(len(ids) > 0 and ids[0] in tokenizer.all_special_ids)


def text_ids(backbone: str, text: str, length: int) -> Int[Tensor, "one p"]:
    """The tokens of a text that prompts start from, without special ones, repeated or cut to `length`.

    Raises:
        InputError: the text has no tokens.
    """
    ids = load(backbone)(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError(f"init_text: {text!r} has no tokens; give a text.")
    return torch.tensor([(ids * (length // len(ids) + 1))[:length]])
