"""Rows written as a template: token by token, cut, behind demonstrations; few-shot splits, several folders, `where`."""

import json
from dataclasses import replace

import numpy as np
import pytest
import runs
import torch

from ptune.data.choice import MultipleChoice
from ptune.data.classification import Classification
from ptune.data.fill import Fill
from ptune.data.qa import SpanQA
from ptune.data.tagging import Tagging
from ptune.errors import InputError
from ptune.tasks import TaskSpec

TASK = TaskSpec("own", text=("a",), label="y", labels=("no", "yes"), verbalizer={"no": "judge", "yes": "baker"})
ROW = {"a": "the nurse thanked", "b": "the pilot", "y": "yes"}
MASK = "{a} [MASK]."


@pytest.fixture(scope="module")
def bert():
    return runs.bert(lm=True)


@pytest.fixture(scope="module")
def gpt2():
    return runs.gpt2()


def ask(backbone, template=MASK, task=TASK, kind=Classification, **options):
    """A data module with a template."""
    return kind(task, backbone, template=template, **options)


def batch_of(data, *rows):
    """The batch of these rows, without files."""
    return data.collate(data.encode([data.parse(row) for row in rows], train=True))


def said(data, ids) -> str:
    """Tokens, joined by spaces."""
    return " ".join(data.tokenizer.convert_ids_to_tokens(torch.as_tensor(ids).tolist()))


def marked(data, batch, i=0) -> str:
    """Text i of a batch, its slots written as _, without padding."""
    ids = batch["input_ids"][i].tolist()
    slots = batch["slots"][i].tolist() if "slots" in batch else [False] * len(ids)
    tokens = data.tokenizer.convert_ids_to_tokens(ids)
    kept = zip(tokens, slots, batch["attention_mask"][i].tolist(), strict=True)
    return " ".join("_" if slot else token for token, slot, seen in kept if seen)


# ---- where everything stands


def test_a_text_is_written_token_by_token(bert):
    data = ask(bert, "{a} who? [MASK].[SEP]{b}")
    batch = batch_of(data, ROW)
    assert marked(data, batch) == "[CLS] the nurse thanked who ? [MASK] . [SEP] the pilot [SEP]"
    assert batch["token_type_ids"].tolist() == [[0] * 9 + [1] * 3]
    assert batch["answer_at"].tolist() == [[6]]
    assert batch["labels"].tolist() == [1]
    assert "slots" not in batch


def test_slots_stand_where_the_template_says_with_words_between_them(bert):
    """P-Tuning v1's anchors: [P:2] text [P] ... fills three groups in order."""
    data = ask(bert, "[P:2] {a} who [P] {b} [P:3][MASK].", slots=6)
    batch = batch_of(data, ROW, ROW | {"a": "a"})
    assert marked(data, batch) == "[CLS] _ _ the nurse thanked who _ the pilot _ _ _ [MASK] . [SEP]"
    assert marked(data, batch, 1) == "[CLS] _ _ a who _ the pilot _ _ _ [MASK] . [SEP]"
    assert batch["answer_at"].tolist() == [[13], [11]]
    assert (batch["input_ids"][batch["slots"]] == data.tokenizer.unk_token_id).all()
    assert batch["slots"].sum(1).tolist() == [6, 6]
    assert batch["attention_mask"].sum(1).tolist() == [16, 14]
    assert (batch["input_ids"][1, 14:] == data.tokenizer.pad_token_id).all()


@pytest.mark.parametrize(("step", "lengths"), [(1, {8, 10, 16, 19}), (8, {8, 16, 20}), (64, {20})])
@pytest.mark.parametrize("causal", [False, True])
def test_texts_of_a_template_are_padded_in_the_same_steps_as_others(bert, gpt2, step, lengths, causal):
    data = ask(gpt2 if causal else bert, "[P:2] {a} [MASK]", slots=2, max_length=20, pad_to_multiple_of=step)
    word = "cab " if causal else "the "  # three tokens, or one
    rows = [ROW | {"a": word * (n // 3 if causal else n)} for n in (3, 5, 11, 14)]  # and five tokens more
    found = set()
    for row in rows:
        batch = batch_of(data, row)
        tensors = [batch[name] for name in ("input_ids", "attention_mask", "slots", "token_type_ids") if name in batch]
        (t,) = {tensor.shape[1] for tensor in tensors}
        found.add(t)
        seen = int(batch["attention_mask"].sum())
        assert t == 20 or (t % step == 0 and t < seen + step)
        assert (batch["input_ids"][0, seen:] == data.tokenizer.pad_token_id).all()
        assert batch["slots"].dtype == torch.bool
        assert batch["slots"].sum() == 2
    if not causal:
        assert found == lengths


def test_slots_of_a_template_without_any_stand_behind_the_first_token(bert, gpt2):
    data = ask(bert, slots=2)
    assert marked(data, batch_of(data, ROW)) == "[CLS] _ _ the nurse thanked [MASK] . [SEP]"
    data = ask(gpt2, "{a}[MASK]", slots=2)
    batch = batch_of(data, ROW)
    assert marked(data, batch) == "_ _ t h e Ġnurse Ġthanked"
    assert batch["answer_at"].tolist() == [[6]]


def test_a_causal_model_answers_behind_the_last_token_it_reads_and_has_no_text_behind_it(gpt2):
    data = ask(gpt2, "{a} the [P:2] [MASK], who?", slots=2)
    batch = batch_of(data, ROW, ROW | {"a": "the"})
    assert marked(data, batch) == "t h e Ġnurse Ġthanked Ġthe _ _"
    assert batch["answer_at"].tolist() == [[7], [5]]
    assert "token_type_ids" not in batch


def test_a_causal_model_without_a_first_token_reads_something_where_all_columns_are_empty(gpt2):
    choice = TaskSpec("own", "multiple_choice", text=("a",), label="y", choices=("c0", "c1"))
    data = ask(gpt2, "{a} [MASK]", choice, MultipleChoice)
    batch = batch_of(data, {"a": "", "c0": "nurse", "c1": "the pilot", "y": 0})
    assert marked(data, batch, 0) == "<|endoftext|>"
    assert marked(data, batch, 1) == "<|endoftext|> Ġthe"
    assert batch["answer_at"].tolist() == [[0, 0], [0, 1]]


def test_a_word_of_several_tokens_has_as_many_masks_and_its_length_an_input_of_its_own(bert):
    data = ask(bert, verbalizer={"no": "nurse", "yes": ["pilot", "cab"]})
    batch = batch_of(data, ROW, ROW | {"y": "no"})
    texts = [marked(data, batch, i) for i in range(4)]
    assert texts[0] == texts[2] == "[CLS] the nurse thanked [MASK] . [SEP]"
    assert texts[1] == texts[3] == "[CLS] the nurse thanked [MASK] [MASK] [MASK] . [SEP]"
    assert batch["answer_at"].tolist() == [[4, 4, 4], [4, 5, 6]] * 2
    assert batch["labels"].tolist() == [1, 0]


def test_a_causal_word_of_several_tokens_is_read_behind_its_own_beginning(gpt2):
    data = ask(gpt2, "{a} [MASK]", verbalizer={"no": "nurse", "yes": "the pilot"})
    batch = batch_of(data, ROW)
    assert [marked(data, batch, i) for i in range(2)] == ["t h e Ġnurse Ġthanked", "t h e Ġnurse Ġthanked Ġthe"]
    assert batch["answer_at"].tolist() == [[4, 4], [4, 5]]


def test_each_ending_is_read_at_its_own_places(bert):
    task = TaskSpec("own", "multiple_choice", text=("a",), label="y", choices=("c0", "c1"))
    data = ask(bert, "{c1} who? {a} [MASK].", task, MultipleChoice)
    assert (data.head.kind, data.head.labels) == ("cloze_choice", ("c0", "c1"))
    batch = batch_of(data, {"a": "the", "c0": "nurse", "c1": "was cab", "y": 1})
    assert marked(data, batch, 0) == "[CLS] was c ##a ##b who ? the [MASK] . [SEP]"
    assert marked(data, batch, 1) == "[CLS] was c ##a ##b who ? the [MASK] [MASK] [MASK] [MASK] . [SEP]"
    assert batch["answer_at"].tolist() == [[8, 8, 8, 8], [8, 9, 10, 11]]
    assert said(data, batch["answer_ids"][1]) == "was c ##a ##b"
    assert batch["answer_ids"][0].tolist()[1:] == [-100] * 3
    assert batch["labels"].tolist() == [1]


def test_a_fact_is_one_mask_and_the_token_of_its_word(bert):
    data = ask(bert, "{a} [MASK].", TaskSpec("own", "fill", text=("a",), label="o", metrics=("precision_at_1",)), Fill)
    batch = batch_of(data, {"a": "the", "o": "nurse"})
    assert marked(data, batch) == "[CLS] the [MASK] . [SEP]"
    assert said(data, batch["labels"]) == "nurse"


def test_rows_whose_word_is_not_one_token_are_left_out_and_counted(bert, folder):
    task = TaskSpec("own", "fill", text=("a",), label="o", metrics=("precision_at_1",), template=MASK)
    words = ["nurse", "cab", "the pilot", "judge", "7", "Nurse"]
    rows = [{"a": "the", "o": word} for word in words]
    data = Fill(task, bert, path=folder(train=rows, validation=rows[:4]))
    data.setup("fit")
    assert data.left_out == {"train": 3, "validation": 2}
    assert said(data, data.gold(data._items["train"])) == "nurse judge nurse"
    with pytest.raises(InputError, match=r"no 'o' of the split 'validation' is one word of the vocabulary"):
        Fill(task, bert, path=folder(train=rows, validation=rows[1:3])).setup("fit")


# ---- cutting


def test_only_columns_are_cut_the_longest_first(bert):
    long, short = "the nurse " * 20, "was by and"
    data = ask(bert, "who? {a} and {b}? [P:2] [MASK].", max_length=26, slots=2)
    batch = batch_of(data, {"a": long, "b": short, "y": 0}, {"a": short, "b": long, "y": 0}, ROW)
    # [CLS] [SEP] who ? and ? _ _ [MASK] . are ten, which leaves sixteen: thirteen beside the three.
    cut = " ".join(long.split()[:13])
    assert marked(data, batch, 0) == f"[CLS] who ? {cut} and was by and ? _ _ [MASK] . [SEP]"
    assert marked(data, batch, 1) == f"[CLS] who ? was by and and {cut} ? _ _ [MASK] . [SEP]"
    assert batch["attention_mask"].sum(1).tolist() == [26, 26, 15]
    assert batch["answer_at"].tolist() == [[23], [23], [12]]


def test_two_long_columns_are_cut_to_equal_lengths(bert):
    data = ask(bert, "{a} [SEP] {b} [MASK]", max_length=16)
    batch = batch_of(data, {"a": "the " * 9, "b": "was " * 30, "y": 0})
    assert sorted([marked(data, batch).count("the"), marked(data, batch).count("was")]) == [6, 6]
    assert batch["input_ids"].shape[1] == 16


def test_the_masks_of_a_longer_word_count_as_tokens(bert):
    data = ask(bert, "{a} [MASK]", max_length=16, verbalizer={"no": "nurse", "yes": "cab"})
    batch = batch_of(data, {"a": "the " * 30, "y": 0})
    assert batch["attention_mask"].sum(1).tolist() == [16, 16]
    assert [marked(data, batch, i).count("the") for i in range(2)] == [13, 11]


def test_a_long_ending_is_cut_to_what_the_template_leaves_and_never_exceeds_the_limit(bert):
    task = TaskSpec("own", "multiple_choice", text=("a",), label="y", choices=("c0", "c1"))
    template = "the was by and the was by and the was by and {a} [MASK]."
    data = ask(bert, template, task, MultipleChoice, max_length=24)
    batch = batch_of(data, {"a": "judge " * 30, "c0": "nurse", "c1": "pilot " * 40, "y": 0})
    assert batch["attention_mask"].sum(1).tolist() == [24, 24]
    assert marked(data, batch, 1).count("[MASK]") == 9  # twelve would be half, but the template takes fifteen
    assert (batch["answer_ids"][1] != -100).sum() == 9


def test_an_ending_that_the_tokenizer_drops_is_the_unknown_token(bert):
    task = TaskSpec("own", "multiple_choice", text=("a",), label="y", choices=("c0", "c1"))
    data = ask(bert, "{a} [MASK]", task, MultipleChoice)
    batch = batch_of(data, {"a": "the judge", "c0": "\u200b", "c1": "pilot", "y": 0})
    assert batch["answer_ids"][0].tolist() == [data.tokenizer.unk_token_id]
    assert marked(data, batch) == "[CLS] the judge [MASK] [SEP]"


def test_an_answer_longer_than_what_the_template_leaves_is_refused(bert):
    data = ask(bert, "the was by and {a} [MASK].", max_length=16, verbalizer={"no": "nurse", "yes": "abcdefghijkl"})
    with pytest.raises(InputError, match=r"--data.max_length 16: an answer takes 12 tokens where .* 9; raise it by 3"):
        batch_of(data, ROW)


def test_a_template_that_leaves_no_room_is_refused(bert):
    with pytest.raises(
        InputError, match=r"--data.max_length 12: template, slots take 5 tokens, which leaves 7 .* by 1"
    ):
        ask(bert, "who? {a} [MASK].", max_length=12)


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"template": "[P:3] {a} [MASK]", "slots": 2}, r"has 3 slots, but the method fills 2; use --model.length 3"),
        ({"template": "[P:3] {a} [MASK]"}, r"has 3 slots, but the method fills 0; leave them out"),
        ({"template": "task"}, r"--data.template task: the task 'own' has none of its own"),
        ({"template": "", "verbalizer": {"no": "judge"}}, r"--data.verbalizer: only a template has words"),
        ({"template": "", "demonstrations": 2}, r"--data.demonstrations 2: only a template has them"),
        ({"demonstrations": -1}, r"--data.demonstrations -1: must be at least 0"),
        ({"verbalizer": {"no": "judge"}}, r"label 'yes' has no word"),
        ({"verbalizer": {"no": "judge", "yes": "☃"}}, r"cannot spell '☃'"),
    ],
)
def test_options_that_do_not_fit_are_refused(bert, options, reason):
    with pytest.raises(InputError, match=reason) as refusal:
        ask(bert, **options)
    assert "\n" not in str(refusal.value)


def test_a_template_of_a_task_that_predicts_a_number_is_refused(bert):
    with pytest.raises(InputError, match=r"--data.template: task 'own' predicts a number"):
        ask(bert, task=TaskSpec("own", text=("a",), label="y", metrics=("pearson",)))
    with pytest.raises(InputError, match=r"--data.template '\{a\} \{y\} \[MASK\]' shows the label column 'y'"):
        ask(bert, "{a} {y} [MASK]")


def test_a_column_behind_the_mask_is_refused_for_a_causal_model_alone(bert, gpt2):
    ask(bert, "{a}? [MASK], {b}")
    with pytest.raises(InputError, match=r"the column 'b' behind its \[MASK\]"):
        ask(gpt2, "{a}? [MASK], {b}")


def test_a_backbone_without_a_language_model_or_a_mask_is_refused(tiny):
    with pytest.raises(InputError, match=r"--data.template: backbone .* has no language model of its own"):
        ask(tiny("t5"))
    with pytest.raises(InputError, match=r"--data.template: the tokenizer of backbone .* has no mask token"):
        ask(tiny("bert", lm=True))


@pytest.mark.parametrize("template", ["{sentense} [MASK]", "{a} and {b} [MASK]"])
def test_a_missing_column_is_named_with_its_file_and_line(bert, folder, template):
    rows = [{"a": "the", "b": "was", "y": 1}, {"a": "the", "y": 1}]
    missing = "b" if "{b}" in template else "sentense"
    path = folder(train=rows, validation=rows[:1])
    with pytest.raises(InputError, match=rf"train.jsonl, line {2 - (missing != 'b')}: no column '{missing}'; "):
        ask(bert, template, path=path).setup("fit")


# ---- demonstrations


ROWS = [{"a": word, "y": label} for word, label in zip("bcdefghijklm", ["no"] * 9 + ["yes"] * 3, strict=True)]


def demonstrated(bert, folder, seed, monkeypatch, template=MASK, k=4, rows=ROWS, **options):
    monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
    data = ask(bert, template, path=folder(train=rows, validation=ROWS[:2]), demonstrations=k, **options)
    data.setup("fit" if k < len(rows) else "validate")
    return data


def test_demonstrations_are_rows_with_their_answers_of_all_classes_in_turn_and_not_trained_on(
    bert, folder, monkeypatch
):
    data = demonstrated(bert, folder, 1, monkeypatch)
    front = said(data, data.writer.front)
    shown = [part.split() for part in front.split(" .") if part]
    assert len(shown) == 4
    of = {row["a"]: {"no": "judge", "yes": "baker"}[row["y"]] for row in ROWS}
    assert all(of[letter] == answer for letter, answer in shown)
    assert [answer for _, answer in shown][:2] != [answer for _, answer in shown][1:3]
    assert sorted(answer for _, answer in shown) == ["baker", "baker", "judge", "judge"]
    shown_letters = [letter for letter, _ in shown]
    assert len(set(shown_letters)) == 4
    items = data._items["train"]
    assert len(items) == len(ROWS) - 4
    for item in items:
        text = said(data, item["input_ids"][0])
        assert text.startswith(f"[CLS] {front} ")
        assert text.removeprefix(f"[CLS] {front} ").split()[0] not in shown_letters
    assert [len(data._items[split]) for split in ("train", "validation")] == [8, 2]
    assert all(said(data, item["input_ids"][0]).startswith(f"[CLS] {front} ") for item in data._items["validation"])


def test_rows_have_their_numbers_in_the_file_where_others_are_shown(bert, folder, monkeypatch):
    data = demonstrated(bert, folder, 1, monkeypatch, task=replace(TASK, evaluate=("train",)))
    numbers = data.row_numbers("train")
    assert len(numbers) == len(ROWS) - 4
    assert data.texts_of("train", numbers) == [{"a": ROWS[number]["a"]} for number in numbers]


def test_the_seed_draws_the_demonstrations(bert, folder, monkeypatch):
    fronts = [tuple(demonstrated(bert, folder, seed, monkeypatch).writer.front) for seed in (1, 1, 2, 3)]
    assert fronts[0] == fronts[1]
    assert len(set(fronts)) == 3


def test_demonstrations_stand_behind_slots_and_have_none_of_their_own(bert, folder, monkeypatch):
    data = demonstrated(bert, folder, 1, monkeypatch, "{a}[P:2]who[SEP]the [MASK].", 1, slots=2)
    (text,) = data._items["validation"]["input_ids"][0]
    assert said(data, text).count("[UNK]") == 2
    a, _, answer = said(data, data.writer.front).removesuffix(" .").partition(" who the ")
    assert (len(a), answer in ("judge", "baker")) == (1, True), "words that a slot or [SEP] parts stay apart"


def test_all_training_rows_can_be_shown_where_nothing_is_trained(bert, folder, monkeypatch):
    data = demonstrated(bert, folder, 1, monkeypatch, rows=ROWS[6:11], k=5)
    assert data.splits == ["validation"]
    assert data.majority("validation") == {}
    with pytest.raises(InputError, match=r"has no split 'train' to train on"):
        data.setup("fit")
    with pytest.raises(InputError, match=r"--data.demonstrations 6: there are 5 training rows"):
        demonstrated(bert, folder, 1, monkeypatch, rows=ROWS[6:11], k=6)


def test_demonstrations_that_leave_no_room_are_refused(bert, folder, monkeypatch):
    with pytest.raises(InputError, match=r"--data.max_length 16: template, slots and demonstrations take 15 tokens"):
        demonstrated(bert, folder, 1, monkeypatch, max_length=16)


# ---- few shots, folders, where


def lm_bff(lines: list[str], k: int, seed: int) -> tuple[list[str], list[str]]:
    """What princeton-nlp/LM-BFF 0be721a, tools/generate_k_shot_data.py, writes for these lines of a GLUE task."""
    np.random.seed(seed)
    lines = list(lines)
    np.random.shuffle(lines)
    label_list = {}
    for line in lines:
        label = line.split("\t")[-1]
        if label not in label_list:
            label_list[label] = [line]
        else:
            label_list[label].append(line)
    new_train, new_dev = [], []
    for label in label_list:
        new_train.extend(label_list[label][:k])
    for label in label_list:
        new_dev.extend(label_list[label][k : k * 2])
    return new_train, new_dev


@pytest.mark.parametrize("seed", [13, 21, 42, 87, 100])
def test_few_shots_are_the_rows_that_lm_bffs_script_draws(folder, bert, seed):
    lines = [f"row {i}\t{('no', 'yes', 'maybe')[(i * i) % 7 % 3]}" for i in range(60)]
    rows = [dict(zip(("a", "y"), line.split("\t"), strict=True)) for line in lines]
    task = TaskSpec("own", text=("a",), label="y", labels=("no", "yes", "maybe"))
    data = Classification(task, bert, path=folder("tsv", train=rows, validation=rows[:5]), shots=4, data_seed=seed)
    data.setup("fit")
    drawn = [
        [f"{row['texts'][0]}\t{task.labels[row['label']]}" for row in data._rows[split]] for split in ("train", "dev")
    ]
    assert tuple(drawn) == lm_bff(lines, 4, seed)
    assert [len(data._items[split]) for split in ("train", "dev")] == [12, 12]
    assert data.splits == ["dev", "validation"], "the checkpoint is chosen on dev"


def test_too_many_shots_are_refused_with_how_many_there_can_be(folder, bert):
    path = folder(train=ROWS, validation=ROWS)
    with pytest.raises(
        InputError, match=r"--data.shots 2: .*train.jsonl has 3 rows of class 'yes', and 4 .* at most 1"
    ):
        Classification(TASK, bert, path=path, shots=2).setup("fit")
    with pytest.raises(InputError, match=r"--data.shots 2: task 'own' has no classes"):
        Classification(TaskSpec("own", text=("a",), metrics=("pearson",)), bert, path=path, shots=2)
    with pytest.raises(InputError, match=r"--data.shots -1: must be at least 0"):
        Classification(TASK, bert, path=path, shots=-1)


@pytest.mark.parametrize(
    ("kind", "task", "why"),
    [
        (
            Tagging,
            TaskSpec("own", "tagging", ("a",), "y", ("O", "B-X"), metrics=("entity_f1",)),
            "has many tags, not one",
        ),
        (
            SpanQA,
            TaskSpec("own", "span_qa", ("a", "b"), "y", ("no", "yes"), metrics=("f1",)),
            "is a span of its context",
        ),
        (
            Fill,
            TaskSpec("own", "fill", ("a",), "y", metrics=("precision_at_1",), template=MASK),
            "is a word of the vocab",
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "-",
)
def test_shots_are_refused_for_a_format_whose_rows_have_no_class(kind, task, why, bert):
    with pytest.raises(InputError, match=rf"--data.shots 2: an? \w+ {why}.*; leave it out."):
        kind(task, bert, shots=2)


def test_shots_of_a_choice_without_names_are_drawn_by_the_number_of_the_right_one(bert, folder):
    task = TaskSpec("own", "multiple_choice", text=("a",), label="y", choices=("c0", "c1"))
    rows = [{"a": "the nurse", "c0": "cab", "c1": "baker", "y": i % 2} for i in range(8)]
    data = MultipleChoice(task, bert, path=folder(train=rows, validation=rows), shots=2)
    data.setup("fit")
    assert [len(rows) for rows in data._rows.values()] == [4, 8, 4]


def test_a_file_called_dev_is_a_split_as_any_other_unless_few_shots_are_drawn(bert, folder):
    path = folder(train=ROWS, dev=ROWS[:2])
    own = replace(TASK, evaluate=("dev",))
    data = Classification(own, bert, path=path)
    data.setup("fit")
    assert (data.splits, data.chosen_on, len(data.val_dataloader().dataset)) == (["dev"], "dev", 2)
    for task in (own, replace(TASK, evaluate=("validation", "dev")), replace(TASK, train="dev")):
        with pytest.raises(InputError, match=r"--data.shots 1: .* called 'dev' like a file of task 'own'; rename"):
            Classification(task, bert, path=path, shots=1)


def test_a_split_is_evaluated_once(bert):
    with pytest.raises(
        InputError, match=r"'own': --data.task.evaluate \['test', 'test'\] names 'test' twice; name each"
    ):
        Classification(replace(TASK, evaluate=("test", "test")), bert)


@pytest.mark.parametrize(
    ("evaluate", "shots", "chosen_on", "on_test"),
    [
        (("validation", "test"), 0, "validation", False),
        (("test",), 0, "test", True),
        (("test_matched", "validation"), 0, "test_matched", True),
        (("test",), 1, "dev", False),
    ],
)
def test_a_module_says_which_split_chooses_the_checkpoint(evaluate, shots, chosen_on, on_test, bert, folder):
    path = folder(train=ROWS, validation=ROWS, test=ROWS, test_matched=ROWS)
    data = Classification(replace(TASK, evaluate=evaluate), bert, path=path, shots=shots)
    assert (data.chosen_on, data.chosen_on_test) == (chosen_on, on_test)
    assert data.task.evaluate == evaluate
    data.setup("fit")
    assert data.splits[0] == chosen_on


def test_a_split_is_read_from_the_first_folder_that_has_it(bert, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for place, splits in ((one, ("train",)), (two, ("train", "validation"))):
        place.mkdir()
        for split in splits:
            runs.write(place / f"{split}.jsonl", [{"a": f"{place.name} {split}", "y": 0}])
    splits = Classification(TASK, bert, path=[str(one), str(two)])._read()
    assert {split: rows.rows[0]["a"] for split, rows in splits.items()} == {
        "train": "one train",
        "validation": "two validation",
    }
    with pytest.raises(InputError, match=rf"--data.path: {one} has no file for the split 'validation'"):
        Classification(TASK, bert, path=[str(one)])._read()
    with pytest.raises(InputError, match=rf"--data.path {tmp_path / 'three'}: does not exist"):
        Classification(TASK, bert, path=[str(one), str(tmp_path / "three")])._read()


def test_where_keeps_the_rows_of_one_value_and_their_lines(bert, folder):
    rows = [{"a": str(i), "y": 0, "kind": i % 3} for i in range(9)]
    task = TaskSpec("own", text=("a",), label="y", labels=("no", "yes"), where=("kind", "2"))
    splits = Classification(task, bert, path=folder(train=rows, validation=rows))._read()
    assert [row["a"] for row in splits["train"].rows] == ["2", "5", "8"]
    assert splits["train"].where(1).endswith("train.jsonl, line 6")
    with pytest.raises(InputError, match=r"task 'own': .*validation.jsonl has no row with kind '2'"):
        Classification(task, bert, path=folder(train=rows, validation=rows[:2])).setup()


# ---- the cache


@pytest.mark.parametrize(
    "other",
    [
        {"template": "{a} [MASK]"},
        {"verbalizer": {"no": "cab", "yes": "baker"}},
        {"slots": 1},
        {"demonstrations": 1},
        {"max_length": 64},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_template_is_not_read_from_the_cache_of_this_one(bert, folder, other):
    path = folder(train=ROWS, validation=ROWS[:2])
    first, second = ask(bert, path=path), ask(bert, **{"path": path, "slots": 0} | other)
    for data in (first, second):
        data.setup("fit")
    uncached = second.encode([second.parse(row) for row in ROWS[:2]], train=False)
    for item, expected in zip(second._items["validation"], uncached, strict=True):
        assert item["input_ids"] == expected["input_ids"]
        assert item["answer_at"] == expected["answer_at"]
    assert json.dumps(first.settings()) != json.dumps(second.settings()) or first.budget != second.budget
