"""Tasks of one's own that leave columns, labels and metrics open: what is read off the data, and what is asked for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import runs

from ptune.data import cache
from ptune.data.choice import MultipleChoice
from ptune.data.classification import Classification
from ptune.data.fill import Fill
from ptune.data.qa import SpanQA
from ptune.data.schemes import labels_of, mistake, scheme_of
from ptune.data.tagging import Tagging
from ptune.errors import InputError
from ptune.tasks.spec import TaskSpec


@pytest.fixture
def backbone():
    """A tokenizer that is loaded in no time."""
    return runs.bert()


QUESTIONS = [
    {"question": f"what is {i}?", "kind": ["NUM", "DESC", "HUM"][i % 3], "score": i / 4, "stars": i % 5, "id": i * 7}
    for i in range(30)
]
KIND = TaskSpec(text=("question",), label="kind")
SQUAD = [{"question": "Who?", "context": "Ada was here.", "answer": "Ada"}] * 3


def written(folder, text, name="train.txt"):
    """A folder with the same column file for training and validation."""
    (folder / name).write_text(text)
    (folder / name.replace("train", "validation")).write_text(text)
    return str(folder)


# ---- columns


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ("text label", ("text",)),
        ("sentence label", ("sentence",)),
        ("label sentence2 sentence1", ("sentence1", "sentence2")),
        ("premise hypothesis label text", ("premise", "hypothesis")),
    ],
)
def test_usual_columns_of_a_class(columns, text, folder, backbone):
    rows = [dict.fromkeys(columns.split(), "a") | {"label": name} for name in ("b", "a", "b")]
    data = Classification(None, backbone, path=folder("csv", train=rows, validation=rows))
    assert (data.task.name, data.task.text, data.task.label, data.task.labels) == ("data", text, "label", ("a", "b"))
    assert data.said == [
        f"text is [{', '.join(text)}]",
        "labels are those of the training split, sorted: [a, b]",
    ]
    data.setup("fit")
    assert sorted(label for batch in data.train_dataloader() for label in batch["labels"].tolist()) == [0, 1, 1]


@pytest.mark.parametrize("label", ["tags", "ner_tags", "labels", "label"])
def test_usual_columns_of_tags(label, folder, backbone):
    rows = [{"tokens": ["a", "b"], label: ["B-X", "O"]}]
    data = Tagging(path=folder(train=rows, validation=rows), backbone=backbone)
    assert (data.task.text, data.task.label) == (("tokens",), label)
    assert data.head.metrics == ("entity_f1", "entity_precision", "entity_recall")


@pytest.mark.parametrize(
    ("columns", "text", "choices", "label"),
    [
        ("question choice0 choice1 choice10 choice2 label", "question", "choice0 choice1 choice2 choice10", "label"),
        ("sent1 sent2 ending0 ending1 label", "sent1 sent2", "ending0 ending1", "label"),
        ("premise choice_1 choice_2 gold", "premise", "choice_1 choice_2", "gold"),
        ("article question A B C D answer id", "article question", "A B C D", "answer"),
        ("question optionA optionB label", "question", "optionA optionB", "label"),
        ("question A B C D E F G H answer", "question", "A B C D E F G H", "answer"),
    ],
)
def test_usual_columns_of_a_choice(columns, text, choices, label, folder, backbone):
    text, choices = tuple(text.split()), tuple(choices.split())
    rows = [dict.fromkeys(columns.split(), "a") | {label: name} for name in (choices[1], 0)]
    data = MultipleChoice(path=folder("csv", train=rows, validation=rows), backbone=backbone)
    assert (data.task.text, data.task.choices, data.task.label) == (text, choices, label)
    assert f"choices are [{', '.join(choices)}]" in data.said
    data.setup("fit")
    assert next(iter(data.val_dataloader()))["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("columns", ["option_a option_b option_c", "A B C", "ending0 ending1 ending2"])
def test_a_letter_is_the_choice_whose_column_ends_with_it(columns, folder, backbone):
    rows = [dict.fromkeys(["question", *columns.split()], "a") | {"answer": letter} for letter in ("B", "c")]
    data = MultipleChoice(path=folder("csv", train=rows, validation=rows), backbone=backbone)
    if "0" in columns:
        fix = "counted from 0; correct it, or list the labels as the column has them by --data.task.labels."
        with pytest.raises(InputError, match=f"label 'B' is none of .* nor their code, {fix}"):
            data.setup("fit")
        return
    data.setup("fit")
    assert next(iter(data.val_dataloader()))["labels"].tolist() == [1, 2]


def test_endings_without_usual_names_are_asked_for(folder, backbone):
    rows = [{"question": "a", "first": "b", "second": "c", "label": 0}]
    path = folder(train=rows, validation=rows)
    with pytest.raises(
        InputError, match=r"choices must name the columns of the endings, of those in .*: 'question', 'fi"
    ):
        MultipleChoice(path=path, backbone=backbone)
    data = MultipleChoice(TaskSpec(choices=("first", "second")), path=path, backbone=backbone)
    assert (data.task.text, data.said) == (("question",), ["text is [question]"])


@pytest.mark.parametrize("label", ["obj_label", "answer", "word", "label"])
def test_a_template_names_the_columns_of_a_word_to_fill_in(label, folder):
    rows = [{"who": "the nurse", "why": "", label: name} for name in ("nurse", "pilot")]
    path = folder(train=rows, validation=rows)
    data = Fill(path=path, backbone=runs.bert(lm=True), template="{who} was {who} [MASK].")
    data.setup("fit")
    assert (data.task.text, data.task.label, data.read_columns) == (("who",), label, ("who",))
    with pytest.raises(InputError, match="has none of its own; write one"):
        Fill(path=path, backbone=runs.bert(lm=True))


def test_a_template_names_the_columns_of_a_class(folder):
    rows = [{"review": "a", "sentence": "b", "label": name} for name in ("no", "yes")]
    more = {"template": "{review} It was [MASK].", "verbalizer": {"no": "the", "yes": "and"}}
    data = Classification(path=folder(train=rows, validation=rows), backbone=runs.bert(lm=True), **more)
    assert (data.task.text, data.task.labels) == (("review",), ("no", "yes"))


def test_usual_columns_of_answers(folder, backbone):
    data = SpanQA(path=folder("csv", train=SQUAD, validation=SQUAD), backbone=backbone)
    data.setup("fit")
    assert (data.task.text, data.task.label, data.head.metrics) == (
        ("question", "context"),
        "answer",
        ("f1", "exact_match"),
    )
    assert next(iter(data.loader("validation")))["references"][0]["answers"] == ["Ada"]
    assert data.said[1:] == [
        "label is answer",
        "answers are looked for in the context: the first occurrence of whole words, or else the first one",
    ]
    placed = {"question": "Who?", "context": "Ada.", "answers": {"text": ["Ada"], "answer_start": [0]}}
    assert SpanQA("squad", backbone, max_length=64).remark(placed, "train.json") == ""


@pytest.mark.parametrize(
    ("kind", "task", "sentence"),
    [
        (
            Classification,
            None,
            r"'data': --data.task.text must name the columns to read, of those in .*train.jsonl: 'que",
        ),
        (
            Classification,
            TaskSpec(text=("question",)),
            r"'data': --data.task.label must name the column of the answer, of",
        ),
        (
            Classification,
            TaskSpec(text=("question",), label="knd"),
            r"train.jsonl, line 1: no column 'knd'; the row has 'question', 'kind'",
        ),
        (
            Tagging,
            None,
            r"text must name the columns to read, of those in .*: 'question', 'kind', 'score', 'stars', 'id'\.$",
        ),
        (SpanQA, TaskSpec(text=("question", "kind")), None),
        (MultipleChoice, None, r"label must name the column of the answer, of those in .*train.jsonl: 'question', "),
    ],
)
def test_what_cannot_be_guessed_is_asked_for_with_the_columns_there_are(kind, task, sentence, folder, backbone):
    path = folder(train=QUESTIONS, validation=QUESTIONS)
    if sentence is None:
        assert kind(task, backbone, path=path).task.text == task.text, "labels of spans are not read"
        return
    with pytest.raises(InputError, match=sentence) as error:
        kind(task, backbone, path=path)
    assert "\n" not in str(error.value)


def test_without_a_task_and_without_files_both_are_named():
    for kind in (Classification, Tagging, SpanQA, MultipleChoice):
        with pytest.raises(
            InputError, match=r"--data.task is missing: name a task, which python -m ptune.tasks lists, "
        ):
            kind()


def test_the_name_is_the_folders(folder, backbone, tmp_path):
    path = folder(train=QUESTIONS, validation=QUESTIONS)
    own = tmp_path / "My data (v2)"
    Path(path).rename(own)
    assert Classification(KIND, backbone, path=str(own)).task.name == "My-data-v2"
    assert Classification(KIND, backbone, path=[str(own), str(tmp_path)]).task.name == "My-data-v2"
    assert Classification(replace(KIND, name="mine"), backbone, path=str(own)).task.name == "mine"
    file = own / "train.jsonl"
    assert Classification(KIND, backbone, path=str(file), holdout=0.2).task.name == "My-data-v2"
    file.rename(own / "trec.jsonl")
    assert Classification(KIND, backbone, path=str(own / "trec.jsonl"), holdout=0.2).task.name == "trec"


# ---- labels


def test_labels_are_those_of_the_training_split_sorted(folder, backbone):
    path = folder("csv", train=QUESTIONS, validation=QUESTIONS[:3])
    data = Classification(KIND, backbone, path=path)
    assert data.head.labels == ("DESC", "HUM", "NUM")
    assert data.head.metrics == ("accuracy", "macro_f1")
    assert data.completed == data.task
    assert Classification(data.completed, backbone, path=path).said == [], "and are not read again"
    folder("csv", validation=[QUESTIONS[0] | {"kind": "LOC"}])
    with pytest.raises(InputError, match=r"validation.csv, line 2: column 'kind': label 'LOC' is none of \['DESC', "):
        Classification(KIND, backbone, path=path).setup()


def test_labels_are_read_once_while_the_file_is_the_same(folder, backbone, monkeypatch):
    path = folder(train=QUESTIONS, validation=QUESTIONS)
    read = []
    scan = Classification.read_labels
    monkeypatch.setattr(Classification, "read_labels", lambda self, rows: read.append(1) or scan(self, rows))
    for _ in range(2):
        assert Classification(KIND, backbone, path=path).task.labels == ("DESC", "HUM", "NUM")
    assert read == [1]
    folder(train=[*QUESTIONS, QUESTIONS[0] | {"kind": "ABBR"}])
    assert Classification(KIND, backbone, path=path).task.labels == ("ABBR", "DESC", "HUM", "NUM")
    assert len(list(cache.folder().glob("data-train-labels-*"))) == 2


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([10, 9, 2, 2], ("2", "9", "10")),
        ([1.0, 0.0, 1.0], ("0", "1")),
        ([True, False], ("False", "True")),
        (["b", "10", "9"], ("10", "9", "b")),
        (list(range(77)) * 2, tuple(map(str, range(77)))),  # codes
        ([f"intent {i}" for i in range(30)] * 2, tuple(sorted(f"intent {i}" for i in range(30)))),
        ([0.5, 1, 2], ()),
        (["3.8", "5", "-1e-3"], ()),
    ],
)
def test_classes_and_numbers(values, labels, folder, backbone):
    rows = [{"text": "a", "label": value} for value in values]
    data = Classification(path=folder(train=rows, validation=rows), backbone=backbone)
    data.setup("fit")
    assert data.head.labels == labels
    assert data.head.kind == ("classify" if labels else "regress")
    assert data.head.metrics == (("accuracy", "macro_f1") if labels else ("pearson", "spearman"))
    assert labels or data.said[-1] == "label has decimals and is a number (with --data.task.labels, a class)"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (range(0, 300, 7), r"column 'label' of .*train.jsonl has 43 different numbers: give --data.task.labels for cl"),
        (range(30), r"has 30 different numbers: give .* or --data.task.metrics '\[pearson,spearman\]' for a number"),
        ([f"a text {i}" for i in range(30)], r"has 30 different texts in 30 rows, which are no classes; name another"),
        (["1", "0", "1.0"], r"has '1' and '1.0', which seem to be one class; write it in one form, or list"),
        (["yes", "no", "yes "], r"has 'yes' and 'yes ', which seem to be one class; write it in one form, or list"),
        (["a", "a"], r"has the same value 'a' in all rows: give --data.task.labels"),
        (["a", ""], r"train.jsonl, line 2: column 'label' is empty; fill it or remove the row"),
        (["a", None], r"train.jsonl, line 2: column 'label' is empty"),
        ([["a"], ["b"]], r"train.jsonl, line 1: column 'label' holds a list of labels; use --data MultiLabel"),
    ],
)
def test_a_column_that_does_not_tell_is_asked_about(values, sentence, folder, backbone):
    rows = [{"text": "a", "label": value} for value in values]
    with pytest.raises(InputError, match=sentence):
        Classification(path=folder(train=rows, validation=rows), backbone=backbone)


def test_whole_numbers_are_a_number_where_it_is_asked_for(folder, backbone):
    path = folder(train=QUESTIONS, validation=QUESTIONS)
    asked = Classification(replace(KIND, label="id", metrics=("pearson",)), backbone, path=path)
    assert (asked.head.kind, asked.said) == ("regress", [])
    classes = Classification(replace(KIND, label="score", metrics=("accuracy",)), backbone, path=folder(
        train=QUESTIONS[:8], validation=QUESTIONS[:8]))  # fmt: skip
    assert classes.head.labels[:3] == ("0", "0.25", "0.5")


def test_a_folder_without_a_training_split_needs_labels(folder, backbone):
    path = folder(validation=QUESTIONS)
    with pytest.raises(InputError, match=r"--data.task.labels must name the labels, because there is no split 'train'"):
        Classification(KIND, backbone, path=path)
    assert Classification(replace(KIND, labels=("DESC", "HUM", "NUM")), backbone, path=path).task.name == "data"


def test_a_dataset_gives_its_codes_their_names(tmp_path, backbone):
    import datasets

    names = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})
    part = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 1]}, features=names)
    datasets.DatasetDict(train=part, validation=part).save_to_disk(tmp_path / "own")
    data = Classification(path=str(tmp_path / "own"), backbone=backbone)
    data.setup("fit")
    assert (data.task.labels, data.said[-1]) == (("pos", "neg"), "labels are those of the dataset: [pos, neg]")
    assert sorted(next(iter(data.loader("validation")))["labels"].tolist()) == [0, 1, 1]
    codes = datasets.List(datasets.ClassLabel(names=["O", "B-X"]))
    tags = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": codes})
    part = datasets.Dataset.from_dict({"tokens": [["a", "b"]], "ner_tags": [[0, 1]]}, features=tags)
    datasets.DatasetDict(train=part, validation=part).save_to_disk(tmp_path / "ner")
    assert Tagging(path=str(tmp_path / "ner"), backbone=backbone).task.labels == ("O", "B-X")


@pytest.mark.parametrize("names", [["1", "0"], ["-1", "1"], ["1", "2", "3"]], ids=str)
def test_codes_of_a_dataset_whose_names_are_numbers_stay_codes(names, tmp_path, backbone):
    import datasets

    kinds = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    codes = [*range(len(names))]
    part = datasets.Dataset.from_dict({"text": [f"a{i}" for i in codes], "label": codes}, features=kinds)
    hidden = datasets.Dataset.from_dict({"text": ["a"], "label": [-1]}, features=kinds)
    datasets.DatasetDict(train=part, validation=part, test=hidden).save_to_disk(tmp_path / "own")
    data = Classification(path=str(tmp_path / "own"), backbone=backbone)
    data.setup("fit")
    assert data.task.labels == tuple(names)
    assert data._rows["validation"]["label"][:] == codes
    assert data.splits == ["validation"], "code -1 is no label, whatever the names"
    lists = datasets.List(datasets.ClassLabel(names=names))
    kinds = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "tags": lists})
    part = datasets.Dataset.from_dict({"tokens": [["a"] * len(names)], "tags": [codes]}, features=kinds)
    datasets.DatasetDict(train=part, validation=part).save_to_disk(tmp_path / "tags")
    data = Tagging(path=str(tmp_path / "tags"), backbone=backbone)
    data.setup("fit")
    assert data._rows["validation"]["tags"][:] == [codes]


def test_shots_and_held_out_rows_are_drawn_by_the_labels_that_were_read(folder, backbone):
    path = folder(train=QUESTIONS)
    held = Classification(KIND, backbone, path=path, holdout=0.2)
    held.setup("fit")
    assert held.splits == ["holdout"]
    few = Classification(KIND, backbone, path=folder(train=QUESTIONS, validation=QUESTIONS), shots=2)
    few.setup("fit")
    assert len(few._items["train"]) == 6


# ---- schemes of tags

IOB1 = "EU I-ORG\nrejects O\n\nPeter I-PER\nBlackburn I-PER\nAda B-PER\n"
IOBES = "EU S-ORG\nrejects O\n\nPeter B-PER\nQ I-PER\nBlackburn E-PER\n"


@pytest.mark.parametrize(
    ("text", "scheme", "labels"),
    [
        (IOB1.replace("I-ORG", "B-ORG").replace("Peter I", "Peter B"), "IOB2", "O B-ORG I-ORG B-PER I-PER"),
        (IOB1, "IOB1", "O B-ORG I-ORG B-PER I-PER"),
        (IOBES, "IOBES", "O B-ORG I-ORG E-ORG S-ORG B-PER I-PER E-PER S-PER"),
        (IOBES.replace("S-", "U-").replace("E-", "L-"), "BILOU", "O B-ORG I-ORG L-ORG U-ORG B-PER I-PER L-PER U-PER"),
        ("EU NNP\nrejects VBZ\n", "", "NNP VBZ"),
        ("EU B-ORG\nrejects _\n", "", "B-ORG _"),
    ],
)
def test_every_scheme_is_recognised_and_its_labels_are_whole(text, scheme, labels, tmp_path, backbone):
    data = Tagging(path=written(tmp_path, text), backbone=backbone)
    assert (data.scheme, " ".join(data.task.labels)) == (scheme, labels)
    assert data.said[-1].startswith(f"labels are those of the training split, {scheme or 'sorted'}")
    assert data.head.metrics[0] == ("entity_f1" if scheme else "accuracy")
    data.setup("fit")
    written_tags = [line.split()[1] for line in text.splitlines() if line]
    gold = [data.task.labels[tag] for row in data.gold(data._items["validation"]) for tag in row]
    assert sorted(gold) == sorted(written_tags)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a B-X\nb O\n\nc I-Y\n",
         r"train.txt, line 4: tag 'I-Y' of word 1 stands behind 'O', which IOB2 does not allow; and .*train.txt, line 1"
         r": tag 'B-X' of word 1 stands behind 'O', which IOB1 does not allow; mend it, or list"),
        ("a S-X\nb B-X\n\nc O\n", "line 1: the end of the sentence stands behind 'B-X', which IOBES does not allow"),
        ("a S-X\n\nb I-X\nc E-X\n", "line 3: tag 'I-X' of word 1 stands behind 'O', which IOBES does not allow; mend"),
        ("a B-X\nb E-Y\n", "line 1: tag 'E-Y' of word 2 stands behind 'B-X', which IOBES does not allow"),
        ("a U-X\n\nb S-X\n", "line 1: tag 'U-X' is of BILOU, but .*line 3: tag 'S-X' is of IOBES; mend"),
    ],
)  # fmt: skip
def test_a_scheme_that_cannot_be_is_refused_with_its_line(text, sentence, tmp_path, backbone):
    with pytest.raises(InputError, match=sentence):
        Tagging(path=written(tmp_path, text), backbone=backbone)
    labels = tuple(sorted({line.split()[1] for line in text.splitlines() if line} | {"O", "B-Z"}))
    Tagging(TaskSpec(text=("tokens",), label="tags", labels=labels), backbone, path=str(tmp_path)).setup()


def test_the_other_splits_follow_the_scheme(tmp_path, backbone):
    path = written(tmp_path, IOBES)
    (tmp_path / "validation.txt").write_text("a B-PER\nb O\n")
    with pytest.raises(
        InputError, match=r"validation.txt, line 1: column 'tags': tag 'O' of word 2 stands behind 'B-PER'"
    ):
        Tagging(path=path, backbone=backbone).setup()


def test_which_tags_a_scheme_allows():
    assert [mistake(tags.split(), "IOB1") != "" for tags in ("I-X B-X", "B-X", "I-Y B-X", "O I-X")] == [0, 1, 1, 0]
    assert [mistake(tags.split(), "IOB2") != "" for tags in ("B-X B-X", "I-X", "B-Y I-X", "B-X I-X O")] == [0, 1, 1, 0]
    assert scheme_of([("here", ["O", "O"])]) == ""
    assert labels_of(["U-b", "O", "L-a"], "BILOU") == ("O", *(f"{letter}-{kind}" for kind in "ab" for letter in "BILU"))


def test_a_column_is_chosen_by_its_number(tmp_path, backbone):
    path = written(tmp_path, "EU NNP I-NP I-ORG\nrejects VBZ I-VP O\n")
    data = Tagging(TaskSpec(label="2"), backbone, path=path)
    assert (data.task.text, data.task.labels) == (("tokens",), ("NNP", "VBZ"))
    assert "the file has 4 columns, tags the last one; -DOCSTART- lines and comments (#) are left out" in data.said
    with pytest.raises(InputError, match=r"no column '7'; the row has 'tokens', 'tags', '1', '2', '3', '4'\."):
        Tagging(TaskSpec(label="7"), backbone, path=path)


def test_a_task_of_ptune_finds_its_columns_in_a_file_that_names_none(tmp_path, backbone):
    data = Tagging("conll2003", backbone, path=written(tmp_path, "EU NNP I-NP I-ORG\nrejects VBZ I-VP O\n"))
    data.setup("fit")
    assert data.completed is None
    assert data.gold(data._items["validation"]) == [[data.task.labels.index("I-ORG"), 0]]


def test_json_lines_with_tags_of_codes_have_those_codes(folder, backbone):
    rows = [{"tokens": ["a", "b"], "tags": [10, 2]}]
    assert Tagging(path=folder(train=rows, validation=rows), backbone=backbone).task.labels == ("2", "10")


def test_a_mistake_in_a_list_of_tags_is_named(folder, backbone):
    rows = [{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a"], "tags": [None]}]
    with pytest.raises(InputError, match=r"train.jsonl, line 2: column 'tags' must be a list with an item a word"):
        Tagging(path=folder(train=rows, validation=rows), backbone=backbone)
    assert json.dumps(rows)


def test_fewer_training_rows_are_drawn_by_the_data_seed_and_the_same_for_every_method(tmp_path, backbone):
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(40)]
    for split, some in (("train", rows), ("validation", rows[:6])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))

    def trained_on(**options) -> tuple[str, int]:
        data = Classification(backbone=backbone, path=str(tmp_path), **options)
        data.setup("fit")
        return data.fingerprints()["train"], len(data.items_of("train"))

    found, count = trained_on(train_rows=10)
    assert count == 10
    assert trained_on(train_rows=10) == (found, 10)
    assert trained_on(train_rows=10, data_seed=1) != (found, 10)
    assert trained_on(train_rows=10, holdout=0.5)[1] == 10
    with pytest.raises(InputError, match=r"--data\.train_rows 41: .* has 40 rows to train on"):
        trained_on(train_rows=41)
