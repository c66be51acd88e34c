import math
import sys
import warnings

import pytest
import torch
from scipy import stats
from seqeval.metrics import f1_score, precision_score, recall_score
from sklearn import metrics

from ptune.errors import InputError
from ptune.heads import head_class
from ptune.heads.metrics import Scores, majority, measure, resampled
from ptune.heads.spans import decode, exact_and_f1, normalise, ranked_spans
from ptune.heads.tags import SCHEMES, entities
from ptune.tasks.spec import HeadSpec

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def spec(kind, metrics, labels=("no", "yes")):
    return HeadSpec("test", kind, labels, metrics, metrics[0])


def classify(metrics, predictions, labels, classes=2, **columns):
    """The metrics of these predictions, given in two batches."""
    scores = Scores(spec("classify", metrics, tuple(map(str, range(classes)))))
    logits = torch.nn.functional.one_hot(torch.tensor(predictions), classes).float()
    half = len(labels) // 2
    for part in (slice(0, half), slice(half, None)):
        columns_part = {name: torch.tensor(column)[part] for name, column in columns.items()}
        scores.update(logits[part], {"labels": torch.tensor(labels)[part], **columns_part})
    return scores.compute()


def test_classification_by_hand():
    # tp 2, fp 1, fn 1, tn 2
    values = classify(("accuracy", "f1", "matthews", "macro_f1"), [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0])
    expected = {"accuracy": 4 / 6, "f1": 2 / 3, "matthews": (2 * 2 - 1) / 9, "macro_f1": 2 / 3}
    assert values == pytest.approx(expected)
    assert list(values) == ["accuracy", "f1", "matthews", "macro_f1"]
    assert all(type(value) is float for value in values.values())


def test_several_classes():
    labels, predictions = [0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1]  # scikit-learn's documented example: macro F1 0.2667
    assert classify(("macro_f1",), predictions, labels, 3)["macro_f1"] == pytest.approx(0.8 / 3)


def test_matthews_is_the_correlation_of_two_classes():
    torch.manual_seed(0)
    a, b = torch.randint(2, (2, 500)).tolist()
    assert classify(("matthews",), a, b)["matthews"] == pytest.approx(stats.pearsonr(a, b)[0])


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_predictions_are_zero_not_undefined(constant):
    values = classify(("matthews", "f1"), [constant] * 4, [1, 1, 1, 0])
    assert values["matthews"] == 0.0
    assert classify(("f1", "matthews"), [0] * 4, [0] * 4) == {"f1": 0.0, "matthews": 0.0}


def table_of(kind, rows=60):
    """Random rows of a head's table; those of a head of classes belong to 20 groups of uneven sizes."""
    generator = torch.Generator().manual_seed(1)
    counts = torch.randint(4, (rows, 5), generator=generator)
    if kind == "regress":
        return torch.randn(rows, 2, generator=generator).mul(4).round()  # with ties
    if kind == "multi_label":
        return (torch.rand(rows, 6, generator=generator) > 0.5).float()
    if kind == "tag":
        return torch.stack(
            [counts[:, 0], counts[:, :2].sum(1), counts[:, [0, 2]].sum(1), counts[:, 3], counts[:, 3] + 1], 1
        )
    if kind == "span":
        return torch.cat([torch.randn(rows, 1, generator=generator), counts[:, :3].clamp(max=1), counts[:, :1] * 0], 1)
    group = torch.randint(20, (rows, 1), generator=generator)
    return torch.cat([counts[:, :2].clamp(max=1), group, group * 0, group * 0], 1)


@pytest.mark.parametrize("kind", ["classify", "cloze", "choice", "fill", "regress", "multi_label", "tag", "span"])
def test_a_metric_of_resamples_is_that_of_the_repeated_rows(kind):
    head, table = head_class(kind), table_of(kind).float()
    units = head.units(table)
    count = int(units.max()) + 1
    assert count == (len(table[:, 2].unique()) if "question_em" in head.metrics or kind in ("choice", "fill") else 60)
    weights = torch.multinomial(
        torch.ones(7, count), count, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    weights = torch.stack([row.bincount(minlength=count) for row in weights])[:, units]
    labels = ("a", "b", "c") if kind == "multi_label" else ("no", "yes")
    for name in head.metrics:
        one = spec(kind, (name,), labels)
        expected = []
        for row in weights:
            drawn = table.repeat_interleave(row, dim=0)
            if name == "question_em":  # a group that is drawn twice is two groups
                copy = torch.cat([torch.arange(int(times)) for times in row])
                drawn[:, 3] = copy
            expected.append(measure(one, drawn)[name])
        assert resampled(one, name, table, weights.double()).tolist() == pytest.approx(expected, abs=1e-12), name
        assert len(set(expected)) > 1


def test_metrics_of_several_classes_are_scikit_learns():
    table = torch.randint(5, (300, 5), generator=torch.Generator().manual_seed(0))
    guess, gold = table[:, 0].numpy(), table[:, 1].numpy()
    values = measure(spec("classify", ("macro_f1", "matthews", "accuracy"), tuple("abcde")), table)
    assert values == pytest.approx(
        {
            "macro_f1": metrics.f1_score(gold, guess, average="macro"),
            "matthews": metrics.matthews_corrcoef(gold, guess),
            "accuracy": metrics.accuracy_score(gold, guess),
        }
    )


def test_question_em_needs_every_answer_of_a_question():
    values = classify(
        ("question_em", "f1"), [1, 0, 1, 1, 0], [1, 0, 1, 0, 0], group=[2**55, 2**55, 2**55 + 1, 2**55 + 1, 9]
    )
    assert values["question_em"] == pytest.approx(2 / 3)
    assert values["f1"] == pytest.approx(0.8)


def test_correlations_equal_scipy_and_constants_give_zero():
    torch.manual_seed(0)
    predictions, labels = torch.randn(40), torch.randint(6, (40,)).float()
    predictions[:5] = 1.0  # ties
    scores = Scores(spec("regress", ("pearson", "spearman"), ()))
    scores.update(predictions, {"labels": labels})
    expected = {"pearson": stats.pearsonr(predictions, labels)[0], "spearman": stats.spearmanr(predictions, labels)[0]}
    assert scores.compute() == pytest.approx(expected, abs=1e-6)
    scores.reset()
    scores.update(torch.full((40,), 0.3), {"labels": labels})
    assert scores.compute() == {"pearson": 0.0, "spearman": 0.0}
    scores.reset()
    scores.update(predictions.index_fill(0, torch.arange(9), math.nan), {"labels": labels})
    assert scores.compute() == {"pearson": 0.0, "spearman": 0.0}, "a model that gives NaN to some rows"


SENTENCES = [  # gold, predicted: where plain BIO readers and conlleval disagree
    ("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC"),
    ("O B-LOC O", "O I-LOC O"),  # an I- with nothing before it starts an entity
    ("B-PER I-PER O", "B-PER I-LOC O"),  # a change of type ends one and starts the next
    ("B-LOC B-LOC", "B-LOC I-LOC"),  # two entities, and one
    ("B-PER I-PER I-PER", "B-PER I-PER O"),  # too short
    ("O O", "O O"),
    ("B-LOC", "B-LOC"),
    ("I-LOC", "B-LOC"),  # entities at the border of sentences do not run together
]
# entities   gold 2 1 1 2 1 0 1 1 = 9; predicted 2 1 2 1 1 0 1 1 = 9; right 2 1 0 0 0 0 1 1 = 5


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB2", "O B-PER I-PER I-PER B-PER B-LOC O"),
        ("IOB1", "O I-PER I-PER I-PER B-PER I-LOC O"),
        ("IOBES", "O B-PER I-PER E-PER S-PER S-LOC O"),
        ("BILOU", "O B-PER I-PER L-PER U-PER U-LOC O"),
    ],
)
def test_every_scheme_has_the_same_entities(scheme, tags):
    assert entities(tags.split()) == {("PER", 1, 3), ("PER", 4, 4), ("LOC", 5, 5)}
    labels = ("O", *(f"{letter}-{kind}" for letter in SCHEMES[scheme.rstrip("12")] for kind in ("PER", "LOC")))
    scores = Scores(spec("tag", ("entity_f1", "entity_precision"), labels))
    gold = torch.tensor([[labels.index(tag) for tag in tags.split()]])
    guess = gold.clone()
    guess[0, 5] = 0  # misses one of three
    scores.update(torch.nn.functional.one_hot(guess, len(labels)).float(), {"labels": gold})
    assert scores.compute() == pytest.approx({"entity_f1": 0.8, "entity_precision": 1.0})


def tag_batch(sentences, feature_row=None):
    """Padded batch of pieces; the first token of every word has a label, others -100."""
    width = 2 + 2 * max(len(gold.split()) for gold, _ in sentences)
    labels = torch.full((len(sentences), width), -100)
    logits = torch.randn(len(sentences), width, len(TAGS))
    for row, (gold, predicted) in enumerate(sentences):
        for word, (g, p) in enumerate(zip(gold.split(), predicted.split(), strict=True)):
            labels[row, 1 + 2 * word] = TAGS.index(g)
            logits[row, 1 + 2 * word, TAGS.index(p)] = 99
    batch = {"labels": labels}
    return logits, batch if feature_row is None else batch | {"feature_row": torch.tensor(feature_row)}


def test_entities_as_conlleval_counts_them():
    metrics = ("entity_f1", "entity_precision", "entity_recall")
    scores = Scores(spec("tag", metrics, TAGS))
    for part in (SENTENCES[:3], SENTENCES[3:]):
        scores.update(*tag_batch(part))
    gold, predicted = ([tags.split() for tags in side] for side in zip(*SENTENCES, strict=True))
    expected = [f1_score(gold, predicted), precision_score(gold, predicted), recall_score(gold, predicted)]
    assert list(scores.compute().values()) == pytest.approx(expected)
    assert scores.compute() == pytest.approx(dict.fromkeys(metrics, 5 / 9))


def test_pieces_of_a_sentence_are_put_together():
    gold = "B-PER I-PER I-PER"
    scores = Scores(spec("tag", ("entity_f1", "accuracy"), TAGS))
    scores.update(*tag_batch([("B-LOC", "B-LOC"), ("B-PER I-PER", "B-PER I-PER"), ("I-PER", "I-PER")], [0, 1, 1]))
    assert scores.compute() == {"entity_f1": 1.0, "accuracy": 1.0}
    assert f1_score([gold.split()], [gold.split()]) == 1.0


def test_no_entity_at_all_is_zero_without_a_warning():
    scores = Scores(spec("tag", ("entity_f1", "entity_precision", "entity_recall"), TAGS))
    scores.update(*tag_batch([("O O", "O O")]))
    assert set(scores.compute().values()) == {0.0}


def test_normalisation():
    assert normalise("  The  quick, brown fox's an-swer ") == "quick brown foxs answer"
    assert normalise("Athens another A. theta") == "athens another theta"  # articles are whole words


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("The Beatles", ["Beatles"], 1, 1),
        ("the beatles!", ["Elvis", "Beatles, The"], 1, 1),
        ("in the year 1912", ["1912"], 0, 2 * (1 / 3) / (1 + 1 / 3)),
        ("1912", ["in 1912", "May 1912 or so"], 0, 2 / 3),
        ("dog dog cat", ["dog cat cat"], 0, 2 / 3),  # bags of words
        ("Paris", ["London"], 0, 0),
        ("", [""], 1, 1),
        ("", [], 1, 1),
        ("Paris", [], 0, 0),
        ("", ["Paris"], 0, 0),
        ("the", [""], 1, 1),
        ("", ["", "Paris"], 0, 0),  # an empty reference beside a real one does not count
        ("café", ["cafe"], 0, 0),
    ],
)
def test_answers_as_the_official_script(prediction, answers, exact, f1):
    assert exact_and_f1(prediction, answers) == pytest.approx((exact, f1))
    if answers and all(map(normalise, answers)):
        from torchmetrics.functional.text import squad

        target = {"id": "1", "answers": {"text": answers, "answer_start": [0] * len(answers)}}
        values = squad([{"prediction_text": prediction, "id": "1"}], [target])
        assert [values["exact_match"] / 100, values["f1"] / 100] == pytest.approx([exact, f1])


def brute_force(scores, offsets, feature_row, question, longest, n_best=20):
    """utils_qa's loops over features, starts and ends: all (score, first, end character), and the null score."""
    found, null = [], math.inf
    for feature in (feature_row == question).nonzero().flatten().tolist():
        start, end = scores[feature, :, 0].tolist(), scores[feature, :, 1].tolist()
        null = min(null, start[0] + end[0])
        inside = [token for token in range(len(start)) if offsets[feature, token, 0] >= 0]
        starts = sorted(inside, key=lambda token: -start[token])[:n_best]
        ends = sorted(inside, key=lambda token: -end[token])[:n_best]
        for s in starts:
            for e in ends:
                if e < s or e - s + 1 > longest:
                    continue
                found.append((start[s] + end[e], int(offsets[feature, s, 0]), int(offsets[feature, e, 1])))
    return found, null


def windows(seed, t=50):
    """Nine features of four questions; those of the third one overlap, and the last has no context."""
    generator = torch.Generator().manual_seed(seed)
    feature_row = torch.tensor([0, 0, 1, 2, 2, 2, 2, 3, 3])
    scores = torch.randn(9, t, 2, generator=generator) * 3
    offsets = torch.full((9, t, 2), -1)
    for feature in range(8):
        first = int(torch.randint(1, 20, (), generator=generator))
        last = int(torch.randint(first + 1, t, (), generator=generator))
        begin = torch.arange(last - first) * 4 + (8 if feature_row[feature] == 2 else 100) * feature
        offsets[feature, first:last] = torch.stack([begin, begin + 3], dim=1)
    return scores, offsets, feature_row, 4


@pytest.mark.parametrize("seed", range(20))
def test_decode_equals_a_loop(seed):
    scores, offsets, feature_row, questions = windows(seed)
    spans, null = decode(scores, offsets, feature_row, questions, 5)
    for question in range(questions):
        found, cls = brute_force(scores, offsets, feature_row, question, 5)
        score, start, end = max(found, default=(-math.inf, 0, 0))
        assert spans[question].tolist() == [start, end]
        assert float(null[question]) == pytest.approx(cls - score, abs=1e-4)


@pytest.mark.parametrize("top_k", [1, 5])
def test_an_answer_may_be_as_long_as_the_text_and_takes_no_more_memory(top_k):
    windows_of = windows(0)
    limited, unlimited = (ranked_spans(*windows_of, longest, top_k) for longest in (50, 10**12))
    assert torch.equal(limited.spans, unlimited.spans)
    assert torch.equal(limited.score, unlimited.score)


@pytest.mark.parametrize("top_k", [2, 20, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_ranked_spans_are_the_best_of_all_each_once(seed, top_k):
    scores, offsets, feature_row, questions = windows(seed)
    found = ranked_spans(scores, offsets, feature_row, questions, 5, top_k)
    best = ranked_spans(scores, offsets, feature_row, questions, 5)
    assert torch.equal(found.spans[:, :1], best.spans)
    assert torch.equal(found.score[:, :1], best.score)
    assert torch.equal(found.null, best.null)
    assert torch.equal(found.normaliser, best.normaliser)
    repeated = 0
    for question in range(questions):
        every, _ = brute_force(scores, offsets, feature_row, question, 5)
        largest = {(start, end): score for score, start, end in sorted(every)}
        repeated += len(every) - len(largest)
        expected = sorted(((score, *span) for span, score in largest.items()), reverse=True)[:top_k]
        filled = [[start, end] for _, start, end in expected]
        assert found.spans[question].tolist() == filled + [[0, 0]] * (top_k - len(expected))
        assert found.score[question, : len(expected)].tolist() == pytest.approx([score for score, *_ in expected])
        assert found.score[question, len(expected) :].isneginf().all()
    assert repeated, "no span is in two windows"


@pytest.mark.parametrize("seed", range(5))
def test_in_a_short_context_the_ranked_spans_are_the_best_of_all_spans(seed):
    scores, offsets, feature_row, questions = windows(seed, t=20)  # no start or end is left out
    found = ranked_spans(scores, offsets, feature_row, questions, 30, 20)
    for question in range(questions):
        every, _ = brute_force(scores, offsets, feature_row, question, 30, n_best=1000)
        largest = {(start, end): score for score, start, end in sorted(every)}
        expected = sorted(largest.values(), reverse=True)[:20]
        assert found.score[question, : len(expected)].tolist() == pytest.approx(expected)


def test_of_equal_spans_the_first_one_is_ranked_first():
    offsets = torch.tensor([[[-1, -1], [0, 3], [3, 3], [4, 7], [4, 7]]]).expand(2, 5, 2)  # a token without characters
    found = ranked_spans(torch.zeros(2, 5, 2), offsets, torch.tensor([0, 0]), 1, 2, 9)
    assert found.spans[0].tolist() == [[0, 3], [3, 7], [4, 7], *[[0, 0]] * 6]
    assert found.spans[0, 0].tolist() == decode(torch.zeros(2, 5, 2), offsets, torch.tensor([0, 0]), 1)[0][0].tolist()


def test_no_answer_takes_its_place_among_the_spans():
    scores = torch.zeros(2, 5, 2)
    scores[:, 3, 0], scores[:, 4, 1], scores[:, 0] = 2.0, 2.0, 1.5  # "two six" 4, no answer 3, others 2 and less
    head = head_class("span")

    def texts(top_k, **changes):
        first, _ = head.answers(spec("span", ("f1",), ()), scores, span_batch(**changes), top_k)
        assert all("one two six"[answer["start"] : answer["end"]] == answer["answer"] for answer in first)
        if not changes.get("null_threshold"):
            assert [answer["score"] for answer in first] == sorted((a["score"] for a in first), reverse=True)
        assert sum(answer["score"] for answer in first) < 1
        return [answer["answer"] for answer in first]

    assert texts(3)[:2] == ["two six", ""]
    assert len(texts(3)) == 3
    assert texts(None).count("") == 1
    assert len(texts(None)) == 7  # six spans of three words, and none
    assert "" not in texts(None, null_threshold=math.inf)
    assert texts(2, null_threshold=-2.0) == ["", "two six"]
    assert texts(2, null_threshold=1.5)[1] != ""
    for threshold in (-2.0, -1.0, 0.0, math.inf):
        assert texts(1, null_threshold=threshold) == texts(5, null_threshold=threshold)[:1]


def span_batch(**changes):
    """Two questions of one feature over tokens [CLS] q w0 w1 w2; the second is unanswerable."""
    context = "one two six"
    offsets = torch.tensor([[-1, -1], [-1, -1], [0, 3], [4, 7], [8, 11]]).expand(2, 5, 2)
    references = [
        {"id": "a", "context": context, "answers": ["two six"]},
        {"id": "b", "context": context, "answers": []},
    ]
    batch = {"offsets": offsets, "feature_row": torch.arange(2), "references": references}
    return batch | {"max_answer_length": 30, "null_threshold": 0.0} | changes


def test_null_answers_and_thresholds():
    scores = torch.zeros(2, 5, 2)
    scores[0, 3, 0] = scores[0, 4, 1] = 2.0  # "two six" at 4
    scores[1, 2, 0] = scores[1, 2, 1] = 1.0  # "one" at 2
    names = ("exact_match", "f1", "best_exact_match", "best_f1")

    def values(logits, **changes):
        metric = Scores(spec("span", names, ()))
        metric.update(logits, span_batch(**changes))
        return list(metric.compute().values())

    assert values(scores) == [0.5, 0.5, 1.0, 1.0]  # both answered; a threshold of -3 would be perfect
    scores[1, 0] = 1.5  # null scores 3 against 2
    assert values(scores) == [1.0, 1.0, 1.0, 1.0]
    assert values(scores, null_threshold=2.0) == [0.5, 0.5, 1.0, 1.0]
    scores[0, 0] = 99.0  # null everywhere
    assert values(scores)[:2] == [0.5, 0.5]
    assert values(scores, null_threshold=math.inf)[:2] == [0.5, 0.5]  # SQuAD 1.1: never null


def test_no_span_fits_means_no_answer():
    batch = span_batch(offsets=torch.full((2, 5, 2), -1))
    metric = Scores(spec("span", ("exact_match", "f1"), ()))
    metric.update(torch.zeros(2, 5, 2), batch)
    assert metric.compute() == {"exact_match": 0.5, "f1": 0.5}


def test_majority():
    assert majority(spec("classify", ("accuracy", "f1")), [1, 1, 0], [1, 0, 1, 1]) == pytest.approx(
        {"accuracy": 0.75, "f1": 6 / 7}
    )
    groups = [2**55, 2**55, 2**55 + 1, 2**55 + 1]
    assert majority(spec("classify", ("question_em",)), [0], [0, 0, 1, 0], groups) == {"question_em": 0.5}
    assert majority(spec("choice", ("accuracy",), ()), [2, 2, 1], [2, 0]) == {"accuracy": 0.5}
    rates = torch.linspace(0, 5, 999).tolist()
    assert majority(spec("regress", ("pearson",), ()), rates, rates[:700]) == {"pearson": 0.0}
    tag = spec("tag", ("entity_f1", "accuracy"), TAGS)
    assert majority(tag, [[0, 0, 1]], [[0, 0], [3, 0]]) == {"entity_f1": 0.0, "accuracy": 0.75}
    assert majority(spec("span", ("f1",), ()), [], []) == {}


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (spec("classify", ("acuracy",)), "did you mean 'accuracy'?"),
        (spec("regress", ("accuracy",), ()), "choose one of: pearson, spearman"),
        (spec("classify", ("f1",), ("a", "b", "c")), "use 'macro_f1'"),
        (spec("tag", ("entity_f1",), ("NN", "VB")), "not 'NN'"),
    ],
)
def test_metrics_a_head_cannot_have(head, part):
    with pytest.raises(InputError, match=part.replace("?", r"\?")):
        Scores(head)


def test_the_state_is_not_saved():
    assert Scores(spec("classify", ("accuracy",))).state_dict() == {}


def shard(rank, path, results):
    warnings.simplefilter("ignore")  # torchmetrics' about a process without any batch
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    scores = Scores(spec("classify", ("accuracy", "question_em")))
    if rank == 0:
        logits = torch.tensor([[0.0, 1], [1, 0], [0, 1]])
        scores.update(logits, {"labels": torch.tensor([1, 1, 1]), "group": torch.tensor([0, 0, 1])})
    first = scores.compute()
    scores.reset()
    logits = torch.tensor([[0.0, 1]] * (1 + rank))  # group 7 lies on both processes
    scores.update(logits, {"labels": torch.tensor([rank, 0][: 1 + rank]), "group": torch.tensor([7, 8][: 1 + rank])})
    results.put((rank, first, scores.compute()))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_processes_with_uneven_and_with_no_rows(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=shard, args=(rank, tmp_path / "store", results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    for _, first, second in found:
        assert first == pytest.approx({"accuracy": 2 / 3, "question_em": 0.5})
        assert second == pytest.approx({"accuracy": 1 / 3, "question_em": 0.0})
