"""The tokenizer's own library gives the ids that transformers' call gives."""

import random

import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from ptune.backbone.pretrained import MINILM
from ptune.backbone.tokenizer import encoded, load

LETTERS = "abcdefgh ÄßéZ\t\u200b中文🙂.,'!-[MASK]"


@pytest.fixture(scope="module")
def texts():
    """Texts of 0 to 200 letters, the words of special tokens among them."""
    draw = random.Random(3)
    return ["", "[SEP]", "a [MASK] b", *("".join(draw.choices(LETTERS, k=draw.randrange(200))) for _ in range(60))]


@pytest.fixture(params=["word pieces", "bytes"])
def tokenizer(request):
    """A tokenizer of BERT's kind and one of GPT-2's, which has no token types."""
    if request.param == "word pieces":
        return load(MINILM)
    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator(["the bank of the river", "Ähnlich"], vocab_size=300, special_tokens=["<end>"])
    end = dict.fromkeys(("eos_token", "bos_token", "unk_token", "pad_token"), "<end>")
    return PreTrainedTokenizerFast(
        tokenizer_object=learned._tokenizer, model_input_names=["input_ids", "attention_mask"], **end
    )


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("longest", [9, 64, 512])
def test_ids_are_those_of_the_call(tokenizer, texts, longest, side):
    """Of texts and of pairs, cut on either side or not at all."""
    tokenizer.truncation_side = side
    seconds = texts[::-1]
    for pairs in (None, seconds):
        called = dict(tokenizer(texts, pairs, truncation=True, max_length=longest, return_attention_mask=False))
        tokenizer("another call", padding="max_length", max_length=20)
        assert encoded(tokenizer, texts, pairs, longest) == called


def test_a_class_with_a_call_of_its_own(tokenizer, texts):
    """Its ids are kept."""

    class Doubled(type(tokenizer)):
        def __call__(self, *args, **kwargs):
            found = super().__call__(*args, **kwargs)
            found["input_ids"] = [ids + ids for ids in found["input_ids"]]
            return found

    tokenizer.__class__ = Doubled
    assert encoded(tokenizer, texts, None, 64)["input_ids"] == [
        ids + ids for ids in super(Doubled, tokenizer).__call__(texts, truncation=True, max_length=64)["input_ids"]
    ]
