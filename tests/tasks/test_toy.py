import re

import pytest

from ptune.tasks import task, toy

SPLITS = ("train", "validation", "test")
NAMES = sorted(toy.MAKERS)


def text(row):
    return " ".join(str(value) for key, value in row.items() if key not in ("id", "label"))


@pytest.fixture(scope="module")
def rows():
    return {name: {split: toy.generate(name, split) for split in SPLITS} for name in NAMES}


def test_every_toy_is_a_task():
    assert sorted(row.name for row in toy.TASKS) == NAMES
    assert {row.format for row in toy.TASKS} == {"classification", "multiple_choice", "span_qa", "tagging"}


@pytest.mark.parametrize("name", NAMES)
def test_sizes_and_disjoint_splits(rows, name):
    assert {split: len(part) for split, part in rows[name].items()} == toy.SIZES
    seen = {split: {text(row) for row in part} for split, part in rows[name].items()}
    for split in SPLITS:
        assert len(seen[split]) == toy.SIZES[split]
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert rows[name]["test"] == toy.generate(name, "test")


@pytest.mark.parametrize("split", SPLITS)
def test_no_two_people_and_verb_in_two_splits(rows, split):
    def facts(part):
        pattern = r"[Tt]he (\w+) (?:was )?(\w+)(?: by)? the (\w+)"
        return {(frozenset((a, b)), verb) for row in part for a, verb, b in re.findall(pattern, row["sentence"])}

    others = set().union(*(facts(rows["toy/single"][other]) for other in SPLITS if other != split))
    assert facts(rows["toy/single"][split])
    assert not facts(rows["toy/single"][split]) & others


@pytest.mark.parametrize("name", ["toy/single", "toy/pair", "toy/choice"])
@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced(rows, name, split):
    labels = [row["label"] for row in rows[name][split]]
    assert sum(labels) / len(labels) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["toy/single", "toy/pair"])
def test_no_bag_of_words_decides(rows, name):
    """Every bag of the words that carry meaning comes with both labels as often, but for pairs cut at the end."""
    bags = {}
    for row in rows[name]["train"]:
        words = sorted(re.findall(r"\w+", text(row).lower().replace("was ", "").replace("by ", "")))
        bags.setdefault(tuple(words), []).append(row["label"])
    both = [labels for labels in bags.values() if len(labels) > 1]
    assert len(both) > 0.9 * len(bags)
    assert sum(set(labels) == {0, 1} for labels in both) > 0.98 * len(both)


def facts(sentence):
    """(doer, verb, other) of each clause."""
    found = []
    for clause in sentence.lower().rstrip(".").split(" and "):
        passive = re.fullmatch(r"the (\w+) was (\w+) by the (\w+)", clause)
        active = re.fullmatch(r"the (\w+) (\w+) the (\w+)", clause)
        found.append(passive.groups()[::-1] if passive else active.groups())
    return found


def test_labels_are_true(rows):
    for row in rows["toy/single"]["train"]:
        (a, _, b), (c, _, d) = facts(row["sentence"])
        assert (c in (a, b)) == bool(row["label"])
        assert len({a, b, c, d}) == 3
    for row in rows["toy/pair"]["train"]:
        assert (facts(row["sentence1"]) == facts(row["sentence2"])) == bool(row["label"])
    for row in rows["toy/choice"]["train"]:
        context = facts(row["context"])
        assert facts(row[f"ending{row['label']}"])[0] in context
        assert facts(row[f"ending{1 - row['label']}"])[0] not in context
    for row in rows["toy/qa"]["train"]:
        (answer,), (start,) = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(answer)] == answer
        told = facts(row["context"])
        if passive := re.fullmatch(r"Who was (\w+) by the (\w+)\?", row["question"]):
            verb, doer = passive.groups()
            assert [other for a, v, other in told if (a, v) == (doer, verb)] == [answer]
        else:
            verb, other = re.fullmatch(r"Who (\w+) the (\w+)\?", row["question"]).groups()
            assert [a for a, v, b in told if (v, b) == (verb, other)] == [answer]


def test_tags_are_roles(rows):
    labels = set(task("toy/tagging").labels)
    for row in rows["toy/tagging"]["train"]:
        assert len(row["tokens"]) == len(row["tags"])
        assert set(row["tags"]) <= labels
        clauses = " ".join(row["tokens"]).split(" and ")
        roles = [tag[2:] for tag in row["tags"] if tag.startswith("B-")]
        for clause, pair in zip(clauses, (roles[:2], roles[2:]), strict=True):
            assert pair == (["PATIENT", "AGENT"] if " was " in clause else ["AGENT", "PATIENT"])
