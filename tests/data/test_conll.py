"""Column files as published: CoNLL-2003, BC5CDR's, WNUT's and CoNLL-U, and what is no such file."""

import io
from pathlib import Path

import pytest

from ptune.data import conll
from ptune.errors import InputError

CONLL2003 = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
call NN I-NP O
. . O O

Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER

-DOCSTART- -X- O O

# # I-NP O
10 CD I-NP O
"""


def read(text, name="train.txt"):
    return list(conll.rows(io.StringIO(text, newline="\n"), Path(name)))


def test_conll_2003():
    (first, one), (second, two), (third, three) = read(CONLL2003)
    assert (first, second, third) == (3, 9, 14)
    assert one["tokens"] == ["EU", "rejects", "German", "call", "."]
    assert one["tags"] == one["4"] == ["I-ORG", "O", "I-MISC", "O", "O"]
    assert one["2"] == ["NNP", "VBZ", "JJ", "NN", "."]
    assert two["tokens"] == ["Peter", "Blackburn"]
    assert three["tokens"] == ["#", "10"], "a word, since it has as many columns as the others"


def test_two_columns_with_tabs_whatever_white_space_the_words_hold():
    text = 'Naloxone\tB-Chemical\n10\u00a0mg\tO\n"a b"\tO\n\t\n\u3000\tO\n\u2028\tO\t \n'
    assert read(text) == [
        (1, {"tokens": ["Naloxone", "10\u00a0mg", '"a b"'], "tags": ["B-Chemical", "O", "O"]}),
        (5, {"tokens": ["\u3000", "\u2028"], "tags": ["O", "O"]}),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_spaces_and_a_last_line_without_an_end(end):
    text = end.join(["Zürich  B-LOC ", "\U0001f600 O", "   ", "", "x\ty", "", "'' O"])
    assert [row for _, row in read(text)] == [
        {"tokens": ["Zürich", "\U0001f600"], "tags": ["B-LOC", "O"]},
        {"tokens": ["x"], "tags": ["y"]},
        {"tokens": ["''"], "tags": ["O"]},
    ]


def test_conll_u_has_its_words_in_the_second_column():
    lines = ["# newdoc", "# sent_id = 1", "# text = vámonos al mar", "1-2\tvámonos" + "\t_" * 8]
    lines += [f"{i}\t{word}\t_\t{tag}\t_\t_\t0\troot\t_\t_" for i, word, tag in
              [("1", "vamos", "VERB"), ("2", "nos", "PRON"), ("2.1", "x", "X"), ("3", "#", "SYM")]]  # fmt: skip
    ((line, row),) = read("\n".join(lines) + "\n\n")
    assert (line, row["tokens"], row["4"]) == (5, ["vamos", "nos", "#"], ["VERB", "PRON", "SYM"])


def test_comments_stand_above_a_sentence():
    assert read("# licence: free for all\n\n# id 7 x\n# a = b\nEU B-ORG\n# O\n")[0] == (
        5,
        {"tokens": ["EU", "#"], "tags": ["B-ORG", "O"]},
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "EU B-ORG\nrejects\n",
            "train.txt, line 2: 1 column where the first line has 2, in 'rejects'; give a word and",
        ),
        ("EU B-ORG\n\nNew York B-LOC\n", "line 3: 3 columns where the first line has 2, in 'New York B-LOC'; .* space"),
        ("EU\tB-ORG\nNew York\tB-LOC\nx O\n", "line 3: 1 column where the first line has 2, in 'x O'; .* by a tab"),
        ("EU\nrejects\n", "line 1: 1 column, in 'EU'; give a word and its tags"),
        ("EU B-ORG\n# a comment = inside\n", "line 2: 5 columns where"),
    ],
)
def test_ragged_lines_are_refused_with_their_line(text, sentence):
    with pytest.raises(InputError, match=sentence):
        read(text)


def test_words_without_tags_are_read_where_none_are_needed():
    text = "-DOCSTART-\n\nHe\ntook\naspirin\n\nShe\n"
    found = list(conll.rows(text.splitlines(keepends=True), Path("new.txt"), tagged=False))
    assert found == [(3, {"tokens": ["He", "took", "aspirin"]}), (7, {"tokens": ["She"]})]
    with pytest.raises(InputError, match=r"new\.txt, line 2: 2 columns where the first line has 1, in 'took O'"):
        list(conll.rows(["He\n", "took O\n"], Path("new.txt"), tagged=False))


def test_a_file_without_words_has_no_rows():
    assert read("") == read("\n\n") == read("-DOCSTART- O\n\n# a = b\n") == []
