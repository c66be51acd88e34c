"""The best tags that a scheme allows, against all sequences of tags that there are."""

import json
from itertools import product
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import runs
import torch

import ptune
from ptune.data.schemes import mistake
from ptune.data.tagging import Tagging
from ptune.errors import InputError
from ptune.evaluate import main as evaluate
from ptune.heads import head_class
from ptune.heads.viterbi import best_tags
from ptune.tasks.spec import HeadSpec, TaskSpec

LABELS = {
    "IOB1": ("O", "B-X", "I-X", "B-Y", "I-Y"),
    "IOB2": ("B-X", "I-X", "O", "B-Y", "I-Y"),
    "IOBES": ("O", "B-X", "I-X", "E-X", "S-X", "S-Y"),
    "BILOU": ("I-X", "L-X", "U-X", "B-Y", "L-Y", "O"),
}
each_scheme = pytest.mark.parametrize("scheme", LABELS)


def allowed_sequences(scheme, words):
    """The codes of all sequences of so many tags that the scheme allows."""
    labels = LABELS[scheme]
    every = product(range(len(labels)), repeat=words)
    return [codes for codes in every if not mistake([labels[code] for code in codes], scheme)]


@each_scheme
def test_no_allowed_sequence_is_better(scheme):
    lengths = torch.tensor([1, 2, 3, 4, 5] * 4)
    scores = torch.randn(20, 5, len(LABELS[scheme]), generator=torch.Generator().manual_seed(1)) * 3
    found, free = best_tags(scores, lengths, LABELS[scheme], scheme), 0
    for row, n in enumerate(lengths.tolist()):
        sequences = torch.tensor(allowed_sequences(scheme, n))
        sums = scores[row, :n].double().expand(len(sequences), -1, -1).gather(2, sequences[..., None]).sum((1, 2))
        assert found[row, :n].tolist() == sequences[sums.argmax()].tolist()
        free += found[row, :n].tolist() == scores[row, :n].argmax(-1).tolist()
    assert 0 < free < 20  # some of the best tags of each word are allowed together, and stay; others are not


@each_scheme
def test_what_stands_behind_the_end_is_not_read(scheme):
    scores = torch.randn(3, 6, len(LABELS[scheme]), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([6, 4, 1])
    other = scores.clone()
    other[1, 4:], other[2, 1:] = torch.nan, 1e30
    together = best_tags(other, lengths, LABELS[scheme], scheme)
    for row, n in enumerate(lengths.tolist()):
        alone = best_tags(scores[row : row + 1, :n], lengths[row : row + 1], LABELS[scheme], scheme)
        assert together[row, :n].tolist() == alone[0].tolist()


@each_scheme
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_no_scores_at_all_make_it_break_the_scheme(scheme, value):
    labels = LABELS[scheme]
    scores = torch.randn(30, 7, len(labels), generator=torch.Generator().manual_seed(3))
    scores[torch.rand(scores.shape, generator=torch.Generator().manual_seed(4)) < 0.4] = value
    scores[0] = value
    for codes in best_tags(scores, torch.full((30,), 7), labels, scheme).tolist():
        assert mistake([labels[code] for code in codes], scheme) == ""


def test_pieces_of_a_sentence_and_words_of_several_tokens_are_decoded_as_one_sequence():
    labels = LABELS["IOB2"]
    spec = HeadSpec("own", "tag", labels, ("entity_f1",), "entity_f1", decoding="IOB2")
    head = head_class("tag")
    words = torch.randn(5, len(labels), generator=torch.Generator().manual_seed(5))
    noise = torch.full((len(labels),), 9.0)
    # Sentence 1 is row 0; sentence 0 is rows 1 and 2: its 4 words, of which the second has two tokens.
    scores = torch.stack(
        [
            torch.stack([noise, words[4], noise, noise, noise]),
            torch.stack([noise, words[0], words[1], noise, noise]),
            torch.stack([noise, words[2], words[3], noise, noise]),
        ]
    )
    marks = torch.full((3, 5), -100)
    marks[0, 1] = marks[1, 1] = marks[1, 2] = marks[2, 1] = marks[2, 2] = 0
    batch = {"labels": marks, "feature_row": torch.tensor([1, 0, 0])}
    ((first,), (second,)) = head.answers(spec, scores, batch)
    expected = best_tags(words[None, :4], torch.tensor([4]), labels, "IOB2")[0]
    assert first["answer"] == [labels[code] for code in expected]
    assert first["score"] == pytest.approx(words[:4].softmax(-1)[range(4), expected].tolist())
    assert second["answer"] == [labels[best_tags(words[None, 4:], torch.tensor([1]), labels, "IOB2")[0, 0]]]
    # The table counts what is answered.
    gold = {"labels": marks.masked_scatter(marks != -100, torch.tensor([2, *expected.tolist()]))} | {
        "feature_row": batch["feature_row"]
    }
    assert head.rows(spec, scores, gold)[0].tolist()[3:] == [4, 4]


@pytest.mark.parametrize(
    ("labels", "scheme", "part"),
    [
        (("O", "B-X", "I-X"), "IOBES", ""),
        (("O", "B-X", "E-X"), "IOB2", "tag 'E-X' is none of IOB2's, which begin with B-, I-, or are O; choose"),
        (("DET", "NOUN"), "IOB2", "the tags have no O"),
        (("O", "NOUN"), "IOB2", "tag 'NOUN' is none of IOB2's"),
        (("O", "B-X", "I-X"), None, ""),
    ],
)
def test_tags_that_are_not_those_of_the_scheme_are_refused(labels, scheme, part):
    task = TaskSpec("own", "tagging", text=("tokens",), labels=labels, metrics=("accuracy",))
    if not part:
        assert Tagging(task, runs.bert(), decoding=scheme).head.decoding == (scheme or "")
        return
    with pytest.raises(InputError, match=r"^--data\.decoding IOB2: ") as caught:
        Tagging(task, runs.bert(), decoding=scheme)
    assert part in str(caught.value)


def test_the_scheme_must_be_that_of_the_training_split_where_it_is_read(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": tags} for tags in (["I-X", "O"], ["I-X", "B-X"])]
    for split in ("train", "validation"):
        runs.write(tmp_path / f"{split}.jsonl", rows)
    with pytest.raises(InputError, match="follow IOB1; use that, or leave it out"):
        Tagging(backbone=runs.bert(), path=str(tmp_path), decoding="IOB2")
    listed = TaskSpec("own", text=("tokens",), label="tags", labels=("O", "B-X", "I-X"))
    data = Tagging(listed, runs.bert(), path=str(tmp_path), decoding="IOB2")
    data.setup()
    assert data.said[-1] == "tags of 2 training rows do not follow the decoding's scheme IOB2"


def tags_of(predictions):
    return pq.read_table(predictions / "validation.parquet").column("answer").to_pylist()


@pytest.mark.slow
def test_a_run_answers_what_the_scheme_allows_and_names_it_and_so_does_its_prompt(tmp_path):
    own = {"model__lr": 0.5, "model__length": 3, "trainer__max_epochs": 1, "data__decoding": "IOB2"}
    found = runs.fit(tmp_path, name="toy/tagging", **own)
    assert found["config"]["decoding"] == "IOB2"
    answered = tags_of(tmp_path / "predictions")
    assert not any(mistake(tags, "IOB2") for tags in answered)
    # The folder, and its file alone.
    rows = [json.loads(line) for line in Path(runs.data("toy/tagging"), "validation.jsonl").read_text().splitlines()]
    for place in (tmp_path, tmp_path / "prompts.safetensors"):
        asked = ptune.load(place, device="cpu")
        for numbers, batch, scores in asked.scored([asked.checked(row) for row in rows]):
            answers = head_class("tag").answers(asked.model.head_spec, scores, batch)
            assert [answer["answer"] for (answer,) in answers] == [answered[i] for i in numbers]
    # The same checkpoint without it: the same scores, and tags that the scheme does not allow.
    code, _, err = runs.call([tmp_path, "--data.decoding", "null", "--trainer.accelerator", "cpu"], evaluate)
    assert code == 0, err
    plain = json.loads((tmp_path / "evaluation.json").read_text())
    assert plain["config"]["decoding"] is None
    assert plain["metrics"]["validation"]["loss"] == found["metrics"]["validation"]["loss"]
    assert plain["hash"] == found["hash"] != plain["evaluation_hash"]
    assert any(mistake(tags, "IOB2") for tags in tags_of(tmp_path / "predictions-2"))
