"""What a model gets right and wrong: confusions, labels, entities, spans and numbers, counted another way."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from ptune.heads import head_class, mistakes
from ptune.heads.spans import exact_and_f1
from ptune.heads.tokens import Tag
from ptune.tasks.spec import HeadSpec

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
ENTITIES = HeadSpec("x", "tag", TAGS, ("entity_f1",), "entity_f1")


def test_confusions_are_the_matrix_without_its_zeros():
    random = np.random.default_rng(0)
    gold, answers = (list(random.choice(["a", "b", "c"], 50, p=[0.7, 0.3, 0.0])) for _ in range(2))
    found = mistakes.confusion(answers, gold)
    matrix = confusion_matrix(gold, answers, labels=["a", "b"])
    assert {(true, answer): count for true, answer, count in found.rows} == {
        (true, answer): matrix[i, j] for i, true in enumerate("ab") for j, answer in enumerate("ab")
    }
    assert [row[2] for row in found.rows] == sorted(matrix.flatten(), reverse=True)


def test_of_many_confusions_the_most_frequent_ones_stay():
    words = [str(i) for i in range(2 * mistakes.MOST)]
    rows = mistakes.confusion([*words, "x", "x"], [*words, "y", "y"]).rows
    assert len(rows) == mistakes.MOST
    assert rows[0] == ("y", "x", 2)


def test_a_label_is_given_missed_or_spurious():
    gold, answers = [["a"], ["a", "b"], [], ["b"]], [["a", "b"], ["b"], ["a"], []]
    found = mistakes.of_labels(("a", "b", "c"), answers, gold)
    assert found.columns == ("label", "gold", "correct", "missed", "spurious")
    assert found.rows == [("a", 2, 1, 1, 1), ("b", 2, 1, 1, 1), ("c", 0, 0, 0, 0)]


@pytest.mark.parametrize(
    ("gold", "answer", "fate"),
    [
        ("B-PER I-PER O", "B-PER I-PER O", {"PER": "gold correct"}),
        ("B-PER I-PER O", "B-LOC I-LOC O", {"PER": "gold wrong_type"}),
        ("B-PER I-PER O", "O B-PER O", {"PER": "gold wrong_boundary"}),
        ("B-PER O O", "O O B-PER", {"PER": "gold missed spurious"}),
        ("B-PER I-PER O", "O B-LOC I-LOC", {"PER": "gold missed", "LOC": "spurious"}),
        ("B-PER I-PER O", "O O O", {"PER": "gold missed"}),
        ("O O O", "B-PER O O", {"PER": "spurious"}),
        ("B-PER I-PER I-PER", "B-PER B-PER B-PER", {"PER": "gold wrong_boundary"}),
        ("O O O", "O O O", {}),
    ],
)
def test_an_entity_is_correct_of_a_wrong_type_or_boundary_missed_or_spurious(gold, answer, fate):
    found = mistakes.of_entities([answer.split()], [gold.split()])
    said = {kind: dict(zip(found.columns[1:], counts, strict=True)) for kind, *counts in found.rows}
    expected = {kind: {name.replace("_", " ") for name in names.split()} for kind, names in fate.items()}
    total = said.pop("all")
    assert {kind: {name for name, count in of.items() if count} for kind, of in said.items()} == expected
    assert total == {name: sum(of[name] for of in said.values()) for name in total}


def test_entities_are_counted_as_the_metrics_count_them():
    codes = torch.randint(5, (2, 40, 9), generator=torch.Generator().manual_seed(0))
    (answers, gold) = ([[TAGS[code] for code in row] for row in side.tolist()] for side in codes)
    table = Tag.rows(ENTITIES, torch.nn.functional.one_hot(codes[0], 5).float(), {"labels": codes[1]}).sum(0).tolist()
    found = Tag.mistakes(ENTITIES, answers, gold)
    total = dict(zip(found.columns, found.rows[-1], strict=True))
    assert [total["correct"], total["gold"]] == [table[0], table[2]]
    assert total["gold"] == sum(total[name] for name in ("correct", "wrong type", "wrong boundary", "missed"))
    assert 0 < total["spurious"] < table[1] - table[0]


def test_tags_that_mark_no_entities_are_confused_word_by_word():
    spec = HeadSpec("x", "tag", ("DET", "NOUN"), ("accuracy",), "accuracy")
    found = Tag.mistakes(spec, [["DET", "DET"], ["NOUN"]], [["DET", "NOUN"], ["NOUN"]])
    assert found.kind == "confusion"
    assert {*found.rows} == {("DET", "DET", 1), ("NOUN", "DET", 1), ("NOUN", "NOUN", 1)}


def test_spans_are_exact_overlapping_or_wrong_by_the_length_of_the_right_one():
    rows = [
        ("the cat", ["Cat."], "1"),
        ("dog", ["cat"], "1"),
        ("red dog", ["red cat", "cat"], "2"),
        ("four words are there", ["four words are there"], "3-4"),
        ("", [], "no answer"),
        ("cat", [], "no answer"),
        ("", [" ".join("abcdefghij")], "9 or more"),
    ]
    found = mistakes.of_spans([answer for answer, *_ in rows], [gold for _, gold, _ in rows])
    expected: dict[str, list[int]] = {}
    for answer, gold, words in rows:
        exact, f1 = exact_and_f1(answer, gold)
        counts = expected.setdefault(words, [0, 0, 0, 0])
        counts[0] += 1
        counts[1 if exact else 2 if f1 else 3] += 1
    assert {words: counts for words, *counts in found.rows} == expected
    assert [words for words, *_ in found.rows] == ["no answer", "1", "2", "3-4", "9 or more"]


def test_errors_of_numbers_are_told_from_small_to_large_ones():
    gold = [5.0, 1.0, 4.0, 2.0, 3.0, 0.0, 7.0, 6.0, 9.0, 8.0]
    found = mistakes.of_numbers([value + (1 if value < 5 else -2) for value in gold], gold)
    assert found.rows[0] == (0.0, 1.0, 1.0, 1.0, 2)
    assert found.rows[-1] == (8.0, 9.0, -2.0, 2.0, 2)
    assert mistakes.of_numbers([1.0], [2.0]).rows == [(2.0, 2.0, -1.0, 1.0, 1)]


@pytest.mark.parametrize(
    ("kind", "answers", "gold", "table"),
    [
        ("classify", ["no"], ["yes"], "confusion"),
        ("choice", ["a"], ["b"], "confusion"),
        ("fill", ["word"], ["ward"], "confusion"),
        ("multi_label", [["a"]], [["b"]], "labels"),
        ("tag", [["B-X"]], [["O"]], "entities"),
        ("span", ["a"], [["b"]], "spans"),
        ("regress", [0.5], [1.0], "numbers"),
    ],
)
def test_every_kind_of_head_has_its_table(kind, answers, gold, table):
    labels = {"tag": ("O", "B-X"), "multi_label": ("a", "b")}.get(kind, ())
    found = head_class(kind).mistakes(HeadSpec("x", kind, labels, (), ""), answers, gold)
    assert found.kind == table
    assert all(len(row) == len(found.columns) for row in found.rows)
