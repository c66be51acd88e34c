"""The backbone's tokenizer, and what padding and prompt slots need to know about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ptune.backbone.pretrained import origin, read
from ptune.errors import InputError, first_line


def load(backbone: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a backbone; one without a padding token pads with its end token, which is masked.

    Raises:
        InputError: the backbone has none, or one that cannot be read.
    """
    files = origin(backbone)
    try:
        tokenizer = read(AutoTokenizer, files)
        special = tokenizer.all_special_ids  # an unknown token that is itself unknown is found here
    except Exception as error:  # of any kind: transformers does not check what the tokenizer's files hold
        raise InputError(
            f"backbone {backbone!r}: no tokenizer can be loaded from it ({first_line(error)}); when offline, give a "
            "local folder."
        ) from error
    if len(tokenizer) <= len(special):  # where the files are missing, transformers builds an empty one
        place = files["pretrained_model_name_or_path"]
        raise InputError(f"backbone {backbone!r}: {place} holds no tokenizer; save it beside the model.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def text_start(tokenizer: PreTrainedTokenizerBase) -> int:
    """1 where the tokenizer puts a special token in front of a text ([CLS], <s>), else 0."""
    ids = tokenizer("a")["input_ids"]
    return int(len(ids) > 0 and ids[0] in tokenizer.all_special_ids)


def stand_in(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token id of a prompt slot, whose embedding is replaced."""
    ids = tokenizer.unk_token_id, tokenizer.pad_token_id
    return ids[ids[0] is None]  # type: ignore[return-value]


def encoded(
    tokenizer: PreTrainedTokenizerBase, firsts: list[str], seconds: list[str] | None, longest: int
) -> dict[str, list[list[int]]]:
    """`input_ids`, and `token_type_ids` where the tokenizer has them, of texts or of pairs, cut to `longest` tokens.

    A fast tokenizer's own library is asked without the characters that each token stands for, which takes a third off
    the time. transformers' call, which always finds them, sets it up with the longest text; where that one's ids differ
    (a class of tokenizers that adds something of its own), transformers tokenizes all texts.
    """

    def whole(firsts: list[str], seconds: list[str] | None) -> dict[str, list[list[int]]]:
        found = tokenizer(firsts, seconds, truncation=True, max_length=longest, return_attention_mask=False)
        return {name: found[name] for name in ("input_ids", "token_type_ids") if name in found}

    if not isinstance(tokenizer, PreTrainedTokenizerFast) or not firsts:
        return whole(firsts, seconds)
    at = max(range(len(firsts)), key=lambda i: len(firsts[i]))
    one = whole(firsts[at : at + 1], seconds and seconds[at : at + 1])
    texts = firsts if seconds is None else list(zip(firsts, seconds, strict=True))
    made = tokenizer.backend_tokenizer.encode_batch_fast(texts)
    found = {"input_ids": [text.ids for text in made], "token_type_ids": [text.type_ids for text in made]}
    same = all(found[name][at] == ids for name, (ids,) in one.items())
    return {name: found[name] for name in one} if same else whole(firsts, seconds)


def pieces(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], spaced: bool) -> list[list[int]]:
    """Token ids of texts as they are spelled mid-sentence, behind a space or directly; no special tokens.

    Each text is tokenized behind the anchor "a", whose tokens are then removed: most tokenizers spell a word
    differently at the beginning of a text.
    """
    texts = [text.strip() for text in texts]
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    behind = [f"a {text}" if spaced and text else f"a{text}" for text in texts]
    found = tokenizer(behind, add_special_tokens=False)["input_ids"] if texts else []
    for i, ids in enumerate(found):
        apart = spaced or not texts[i][:1].isalnum()
        if apart and ids[: len(anchor)] == anchor:
            found[i] = ids[len(anchor) :]
        else:
            found[i] = tokenizer(texts[i], add_special_tokens=False)["input_ids"]
    return found


@cache
def whole_words(backbone: str) -> Int[Tensor, " v"]:
    """Token ids of a backbone's whole words: letters that this one token spells behind a space."""
    tokenizer = load(backbone)
    texts = [text.strip() for text in tokenizer.batch_decode([[i] for i in range(len(tokenizer))])]
    spelled = pieces(tokenizer, texts, spaced=True)
    special = set(tokenizer.all_special_ids)
    return torch.tensor([i for i, ids in enumerate(spelled) if ids == [i] and texts[i].isalpha() and i not in special])


@final
@dataclass(frozen=True)
class Frame:
    """The special tokens around a text and between two texts, and the token types of both."""

    begin: list[int]
    between: list[int]
    end: list[int]
    first: int
    second: int
    typed: bool
    """Whether the tokenizer gives token types at all."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Frame":
        """The frame that the tokenizer puts around the texts "a" and "a"."""
        a = tokenizer("a", add_special_tokens=False)["input_ids"]
        pair = tokenizer("a", "a")
        ids, types = pair["input_ids"], pair.get("token_type_ids", [0] * len(pair["input_ids"]))
        places = [i for i in range(len(ids)) if ids[i : i + len(a)] == a]
        one, two, n = places[0], places[-1], len(a)
        between, end = ids[one + n : two], ids[two + n :]
        return cls(ids[:one], between, end, types[one], types[two], "token_type_ids" in pair)


def text_ids(backbone: str, text: str, length: int) -> Int[Tensor, "one p"]:
    """The token ids of the text that a prompt is initialised from, without special ones, repeated or cut to `length`.

    Raises:
        InputError: the text has no tokens.
    """
    ids = load(backbone)(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InputError(f"init_text: {text!r} has no tokens; give a text.")
    return torch.tensor([(ids * (length // len(ids) + 1))[:length]])


@final
@dataclass(frozen=True)
class Answers:
    """The tokens of the verbalizer's words, and the inputs that the words are read from.

    A masked model reads a word of L tokens from L masks, so there is one input for each length that occurs. A causal
    model reads each token behind the tokens before it, so there is one input for each beginning of a word. Mostly there
    is one input in all.
    """

    fills: tuple[tuple[int, ...], ...]
    """The tokens at the mask's place, for each input."""
    inputs: tuple[int, ...]
    """The input that each word is read from."""
    tokens: tuple[tuple[int, ...], ...]
    """The tokens of each word."""
    labels: tuple[int, ...]
    """The label of each word."""


def answers(words: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, causal: bool) -> Answers:
    """The tokens of each label's words, and the inputs that the words are read from.

    Raises:
        InputError: the tokenizer cannot spell a word, or two labels have words of the same tokens.
    """
    flat = [(label, word) for label, group in enumerate(words) for word in group]
    tokens = [tuple(ids) for ids in pieces(tokenizer, [word for _, word in flat], spaced=True)]
    for (_, word), ids in zip(flat, tokens, strict=True):
        if not ids or tokenizer.unk_token_id in ids:
            raise InputError(f"--data.verbalizer: the tokenizer cannot spell {word!r}; choose another word.")
    for i, ids in enumerate(tokens):
        j = tokens.index(ids)
        if j < i:
            raise InputError(
                f"--data.verbalizer: {flat[j][1]!r} and {flat[i][1]!r} are the same to the tokenizer; change one."
            )
    of_words = [filled(ids, tokenizer, causal) for ids in tokens]
    fills = tuple(dict.fromkeys(of_words))
    return Answers(
        fills, tuple(fills.index(fill) for fill in of_words), tuple(tokens), tuple(label for label, _ in flat)
    )


def filled(word: Sequence[int], tokenizer: PreTrainedTokenizerBase, causal: bool) -> tuple[int, ...]:
    """The tokens that stand at the mask's place while a word's tokens are read there."""
    return tuple(word[:-1]) if causal else tuple([tokenizer.mask_token_id] * len(word))  # type: ignore[list-item]
