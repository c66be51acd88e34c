"""Templates and verbalizers: what is read from them, every mistake in them, and how words become tokens."""

import pytest
import runs

from ptune.backbone.tokenizer import answers, load, pieces, whole_words
from ptune.errors import InputError
from ptune.tasks.templates import Part, Template, Verbalizer

LABELS = ("no", "yes")


@pytest.fixture(scope="module")
def bert():
    """A WordPiece tokenizer of toy words and letters."""
    return load(runs.bert(lm=True))


@pytest.fixture(scope="module")
def gpt2():
    """A byte-level BPE, which spells words with the space before them."""
    return load(runs.gpt2())


def test_a_template_is_its_parts_in_order_with_the_space_before_each():
    template = Template("{premise} Question:  {hypothesis}? [P:3] Answer:[P][MASK] .[SEP]{premise}")
    assert template.parts == [
        Part("column", "", "premise"),
        Part("text", " ", "Question:"),
        Part("column", " ", "hypothesis"),
        Part("text", "", "?"),
        Part("slots", " ", count=3),
        Part("text", " ", "Answer:"),
        Part("slots", "", count=1),
        Part("mask", ""),
        Part("text", " ", "."),
        Part("sep", ""),
        Part("column", "", "premise"),
    ]
    assert template.columns == ("premise", "hypothesis", "premise")
    assert template.slots == 4


def test_brackets_of_small_letters_or_more_words_are_text():
    assert [part.text for part in Template("{a} [sic] [an A] [MASK]").parts[:2]] == ["a", "[sic] [an A]"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{a} It was.", r"has no \[MASK\]; write one where the answer stands"),
        ("{a} [MASK] and [MASK]", r"has 2 \[MASK\]s; write one"),
        ("It was [MASK].", r"names no column.*write one, such as \{sentence\}"),
        ("{a} [SLOT] [MASK]", r"has \[SLOT\], which is not one of \[P:n\], \[MASK\] and \[SEP\]"),
        ("{a} [MASK:2]", r"has \[MASK:2\], which is not one of"),
        ("{a} [P:0] [MASK]", r"has \[P:0\]; write how many slots as a number, such as \[P:3\]"),
        ("{a} [P:] [MASK]", r"has \[P:\]; write how many"),
        ("{a} [P:two] [MASK]", r"has \[P:two\]; write how many"),
        ("{a} [P:-1] [MASK]", r"has \[P:-1\]; write how many"),
        ("{a [MASK]", r"has a brace without its other half"),
        ("{a} b} [MASK]", r"has a brace without its other half"),
        ("{a} { } [MASK]", r"has a column without a name"),
    ],
)
def test_a_mistake_in_a_template_is_one_sentence_that_quotes_it(text, reason):
    with pytest.raises(InputError, match=reason) as refusal:
        Template(text)
    assert f"--data.template {text!r}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_causal_model_reads_up_to_the_mask_and_only_text_may_follow():
    template = Template("{a} It was [MASK], I think.")
    assert template.before_mask() == template.parts[:3]
    assert len(template.parts) == 4


@pytest.mark.parametrize(
    ("rest", "what"), [("{b}", "the column 'b'"), (". [P:2]", "slots"), ("! [SEP]", r"\[SEP\]"), ("so {b}", "'b'")]
)
def test_anything_but_text_behind_the_mask_is_refused_for_a_causal_model(rest, what):
    with pytest.raises(InputError, match=f"has (the column )?{what} behind its .*move the mask"):
        Template(f"{{a}} [MASK] {rest}").before_mask()


def test_words_stand_in_the_order_of_the_labels():
    assert Verbalizer({"yes": ["good", " great "], "no": "bad"}, LABELS).words == (("bad",), ("good", "great"))


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        ((0, 1), ("0", "1")),
        ((False, True), ("False", "True")),
        ((True, None), ("true", "null")),
        ((1.0, 2), ("1.0", "2")),
    ],
)
def test_a_label_may_be_what_yaml_makes_of_it(keys, labels):
    assert Verbalizer(dict(zip(keys, ("bad", "good"), strict=True)), labels).words == (("bad",), ("good",))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"yes": "good"}, "label 'no' has no word"),
        ({}, "label 'no' has no word"),
        ({"no": "bad", "yes": []}, "label 'yes' has no word"),
        ({"no": "bad", "yes": " "}, "label 'yes' has no word"),
        ({"no": "bad", "yes": ["good", ""]}, "label 'yes' has no word"),
        ({"no": "bad", "yes": "good", "maybe": "so"}, r"'maybe' is none of the labels \['no', 'yes'\]"),
        ({"no": "good", "yes": ["great", "good"]}, "'good' stands for 'no' and for 'yes'"),
    ],
)
def test_a_mistake_in_a_verbalizer_is_one_sentence(words, reason):
    with pytest.raises(InputError, match=f"^--data.verbalizer: {reason}") as refusal:
        Verbalizer(words, LABELS)
    assert "\n" not in str(refusal.value)


def test_a_word_that_the_tokenizer_cannot_spell_is_refused(bert):
    with pytest.raises(InputError, match=r"^--data.verbalizer: the tokenizer cannot spell '☃'; choose another"):
        answers([["nurse"], ["☃"]], bert, causal=False)


def test_words_that_are_the_same_tokens_are_refused(bert):
    with pytest.raises(InputError, match=r"^--data.verbalizer: 'nurse' and 'Nurse' are the same to the tokenizer"):
        answers([["nurse"], ["Nurse"]], bert, causal=False)


def test_words_of_one_length_are_read_from_one_masked_input(bert):
    found = answers([["nurse"], ["pilot", "judge"]], bert, causal=False)
    assert found.fills == ((bert.mask_token_id,),)
    assert found.inputs == (0, 0, 0)
    assert found.labels == (0, 1, 1)
    assert [bert.convert_ids_to_tokens(word) for word in found.tokens] == [["nurse"], ["pilot"], ["judge"]]


def test_a_masked_model_has_an_input_for_each_length(bert):
    found = answers([["cab"], ["nurse", "the pilot"], ["a b c"]], bert, causal=False)
    m = bert.mask_token_id
    assert found.fills == ((m, m, m), (m,), (m, m))
    assert found.inputs == (0, 1, 2, 0)


def test_a_causal_model_has_an_input_for_each_beginning(gpt2):
    found = answers([[" nurse", "the pilot"], ["the judge"], ["was by the"]], gpt2, causal=True)
    the, was, by = (gpt2.convert_tokens_to_ids(f"Ġ{word}") for word in ("the", "was", "by"))
    assert found.fills == ((), (the,), (was, by))
    assert found.inputs == (0, 1, 1, 2)
    assert [len(word) for word in found.tokens] == [1, 2, 2, 3]


def test_a_byte_level_bpe_spells_answers_with_the_space_before_them(gpt2):
    assert gpt2.convert_ids_to_tokens(answers([["thanked"]], gpt2, causal=True).tokens[0]) == ["Ġthanked"]
    assert gpt2.convert_ids_to_tokens(pieces(gpt2, ["thanked"], spaced=False)[0]) == ["t", "h", "anked"]


@pytest.mark.parametrize("spaced", [True, False])
def test_an_empty_text_has_no_tokens(bert, gpt2, spaced):
    """Not the space before it either."""
    assert pieces(bert, ["", "  "], spaced) == pieces(gpt2, ["", "  "], spaced) == [[], []]


@pytest.mark.parametrize("causal", [False, True])
def test_texts_spelled_apart_are_the_text_spelled_whole(bert, gpt2, causal):
    tokenizer = gpt2 if causal else bert
    apart = pieces(tokenizer, ["the nurse"], False) + pieces(tokenizer, ["thanked", "the pilot"], True)
    ends = pieces(tokenizer, [".", "?!"], False)
    whole = tokenizer("the nurse thanked the pilot.?!", add_special_tokens=False)["input_ids"]
    assert [token for ids in apart + ends for token in ids] == whole


def test_a_real_causal_models_words_have_their_space():
    folder = runs.REPOSITORY.parent / "shared" / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"no real causal language model: no {folder}")
    tokenizer = load(str(folder))
    assert tokenizer.convert_ids_to_tokens(pieces(tokenizer, ["play"], spaced=True)[0]) == ["▁play"]
    assert pieces(tokenizer, [""], spaced=True) == [[]]
    whole = tokenizer("Lily liked to play.", add_special_tokens=False)["input_ids"]
    assert pieces(tokenizer, ["Lily liked"], False)[0] + pieces(tokenizer, ["to play."], True)[0] == whole


def test_whole_words_are_the_words_a_mask_may_be_filled_with(bert, gpt2):
    words = {bert.convert_ids_to_tokens(i) for i in whole_words(runs.bert(lm=True)).tolist()}
    assert {"nurse", "thanked", "the", "a"} <= words
    assert not words & {"##a", ".", "[MASK]", "[CLS]", "[UNK]", "7"}
    words = {gpt2.convert_ids_to_tokens(i) for i in whole_words(runs.gpt2()).tolist()}
    assert {"Ġnurse", "Ġthe"} <= words
    assert not words & {"nurse", "Ġ", "a", ".", "<|endoftext|>"}
