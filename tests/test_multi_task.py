"""Several tasks at once: each row is read as its task alone reads it, with its own head, mask and metrics."""

import json
from pathlib import Path

import pytest
import runs
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import ptune
from ptune.data.classification import Classification
from ptune.data.multi_task import MultiTask
from ptune.errors import InputError
from ptune.export import main as export
from ptune.heads import head_for
from ptune.heads.by_task import ByTask, parts
from ptune.heads.metrics import OF_CLASSES, Scores, majority, measure, resampled
from ptune.methods.multitask_prompt import MaskedPrompt, MultitaskPrompt
from ptune.tasks.spec import HeadSpec

TASKS = ["toy/single", "toy/pair"]
P = 3
SPEC = HeadSpec(
    "multi/a-b", "by_task", ("a:x", "a:y", "a:z", "b:x", "b:y"), ("mean", "a:accuracy", "a:macro_f1", "b:f1"), "mean"
)


def folders(**rows):
    return [runs.data(name, **rows) for name in TASKS]


def data_of(**options):
    data = MultiTask(TASKS, runs.bert(), path=folders(train=10), **{"batch_size": 4} | options)
    data.setup("fit")
    return data


def alone(name, **options):
    data = Classification(name, runs.bert(), path=runs.data(name), **options)
    data.setup("fit")
    return data


def rows_of(batches):
    """The rows of batches: tokens, label and task."""
    found = []
    for batch in batches:
        groups = batch["group"].tolist() if "group" in batch else [None] * len(batch["labels"])
        for ids, mask, label, group in zip(
            batch["input_ids"], batch["attention_mask"], batch["labels"].tolist(), groups, strict=True
        ):
            found.append((group, tuple(ids[mask.bool()].tolist()), label))
    return found


@pytest.mark.parametrize("slots", [0, P])
def test_a_batch_holds_rows_of_all_tasks_each_as_its_task_reads_it(slots):
    data = data_of(slots=slots)
    batches = list(data.train_dataloader())
    assert any(len(set(batch["group"].tolist())) > 1 for batch in batches)
    found = rows_of(batches)
    for number, name in enumerate(TASKS):
        single = rows_of(alone(name, slots=slots).train_dataloader())
        own = [(None, ids, label - 2 * number) for group, ids, label in found if group == number]
        assert sorted(own) == sorted((None, ids, label) for _, ids, label in single)
    assert data.task.labels == ("toy/single:no", "toy/single:yes", "toy/pair:no", "toy/pair:yes")
    numbers = [0, len(data.items_of("validation")) - 1]
    assert [list(texts) for texts in data.texts_of("validation", numbers)] == [["sentence"], ["sentence1", "sentence2"]]


def test_equal_sampling_repeats_the_rows_of_smaller_tasks():
    path = [runs.data("toy/single", train=4), runs.data("toy/pair", train=10)]
    counts = {}
    for sampling in ("proportional", "equal"):
        data = MultiTask(TASKS, runs.bert(), path=path, sampling=sampling)
        data.setup()
        groups = data.items_of("train")["group"][:]
        counts[sampling] = [groups.count(0), groups.count(1)]
        assert len(data.items_of("validation")) == 14
    assert counts == {"proportional": [4, 10], "equal": [10, 10]}
    one, other = (MultiTask(TASKS, runs.bert(), path=path, sampling=each) for each in counts)
    one.setup(), other.setup()
    assert one.fingerprints() != other.fingerprints()


def test_a_row_is_scored_as_by_a_head_of_its_task_alone(frozen):
    backbone = frozen("bert")
    head = head_for(SPEC, backbone.spec, 0.0)
    hidden = torch.randn(5, 4, backbone.spec.width, generator=torch.Generator().manual_seed(0))
    group, labels = torch.tensor([0, 1, 0, 1, 1]), torch.tensor([2, 3, 0, 4, 4])
    batch = {"attention_mask": torch.ones(5, 4, dtype=torch.long), "group": group, "labels": labels}
    scores = head(hidden, batch, backbone)
    pooled = backbone.pool(hidden, batch)
    total = 0.0
    for row, (task, label) in enumerate(zip(group.tolist(), labels.tolist(), strict=True)):
        block = slice(0, 3) if task == 0 else slice(3, 5)
        own = pooled[row] @ head.linear.weight[block].T + head.linear.bias[block]
        assert_close(scores[row, block], own)
        total += F.cross_entropy(own[None], torch.tensor([label - block.start])).item()
    loss, count = head.loss(scores, batch)
    assert (loss.item(), count.item()) == (pytest.approx(total, rel=1e-5), 5)
    (only,) = torch.autograd.grad(head.loss(scores[:1], {"labels": labels[:1]})[0], head.linear.weight)
    assert only[:3].abs().max() > 0
    assert not only[3:].any(), "the head of the other task"


def test_metrics_are_those_of_each_task_alone_and_their_mean():
    generator = torch.Generator().manual_seed(1)
    group = torch.randint(2, (40,), generator=generator)
    labels = torch.where(group == 0, torch.randint(3, (40,), generator=generator), 3 + group)
    labels[group == 1] = 3 + torch.randint(2, (int(group.sum()),), generator=generator)
    scores = torch.randn(40, 5, generator=generator)
    scores[group == 0, 3:] = scores[group == 1, :3] = -1e9
    scores = torch.where((group == 0)[:, None] == (torch.arange(5) < 3), scores, -1e9)
    together = Scores(SPEC)
    for part in (slice(0, 25), slice(25, 40)):
        together.update(scores[part], {"labels": labels[part], "group": group[part]})
    found = together.compute()
    for task, (spec, first, count) in enumerate(zip(parts(SPEC), (0, 3), (3, 2), strict=True)):
        single = Scores(spec)
        rows = group == task
        single.update(scores[rows, first : first + count], {"labels": labels[rows] - first})
        for name, value in single.compute().items():
            assert found[f"{spec.task}:{name}"] == pytest.approx(value)
    assert found["mean"] == pytest.approx((found["a:accuracy"] + found["b:f1"]) / 2)
    table, weights = torch.cat(together.rows).reshape(40, -1), torch.randint(3, (5, 40), generator=generator)
    for name in SPEC.metrics:
        again = [measure(SPEC, table.repeat_interleave(row, dim=0))[name] for row in weights]
        assert_close(resampled(SPEC, name, table, weights), torch.tensor(again, dtype=torch.float64))
    most = majority(SPEC, [0, 2, 2, 3, 4, 4], labels.tolist(), group.tolist())
    assert most["a:accuracy"] == pytest.approx((labels[group == 0] == 2).float().mean().item())


def test_a_task_without_rows_has_metrics_of_zero():
    """A limit on validation batches may leave none of its rows."""
    names = ("a:accuracy", *(f"b:{name}" for name in OF_CLASSES))
    spec = HeadSpec("several", "by_task", ("a:x", "a:y", "b:x", "b:y"), names, "a:accuracy")
    rows = torch.tensor([[0, 1, 0, 0, 0], [1, 1, 0, 0, 0]])
    assert measure(spec, rows) == dict.fromkeys(names, 0.0) | {"a:accuracy": 0.5}


def test_the_heads_of_the_tasks_are_told_from_the_names_of_labels_and_metrics():
    assert parts(SPEC) == [
        HeadSpec("a", "classify", ("x", "y", "z"), ("accuracy", "macro_f1"), "accuracy"),
        HeadSpec("b", "classify", ("x", "y"), ("f1",), "f1"),
    ]
    for wrong in ("a:f1", "a:pearson", "c:accuracy", "accuracy"):
        with pytest.raises(InputError, match="metric"):
            Scores(HeadSpec("multi/a-b", "by_task", SPEC.labels, ("mean", "a:accuracy", "b:f1", wrong), "mean"))


def test_the_prompt_of_a_task_is_the_shared_one_times_the_mask_of_rank_1():
    prompt = MaskedPrompt(P, 4, 2)
    assert torch.equal(prompt(torch.tensor([1]))[0], prompt.vectors), "the start"
    with torch.no_grad():
        for value in (prompt.of_vector, prompt.of_dimension):
            value.normal_(generator=torch.Generator().manual_seed(0))
    found = prompt(torch.tensor([1, 0, 1]))
    for row, task in enumerate((1, 0, 1)):
        mask = torch.outer(prompt.of_vector[task], prompt.of_dimension[task])
        assert_close(found[row], prompt.vectors * mask)
    assert_close(prompt.of(1)(), found[:1])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"tasks": ["toy/pair"]}, "must name two or more different tasks"),
        ({"tasks": ["toy/pair", "toy/pair"]}, "must name two or more different tasks"),
        ({"tasks": ["toy/pair", "stsb"]}, "'stsb' has numbers"),
        ({"tasks": ["toy/pair", "multirc"]}, "'multirc' has groups of rows"),
        (
            {"tasks": ["toy/pair", "toy/tagging"]},
            "'toy/tagging' is a tagging task and not one of classes; leave it out",
        ),
        ({"tasks": ["toy/pair", "mnli"]}, "several tasks at once need the same"),
        ({"path": ["one"]}, "must name a folder for each of 2 tasks"),
    ],
)
def test_tasks_that_do_not_go_together_are_refused(options, part):
    with pytest.raises(InputError, match=part):
        MultiTask(**{"tasks": TASKS, "backbone": runs.bert()} | options)


def test_a_task_without_a_training_split_is_named_with_its_folder(tmp_path):
    places = []
    for name in ("rte", "mrpc"):
        (tmp_path / name).mkdir()
        places.append(str(tmp_path / name))
        for split in ("train", "validation")[name == "mrpc" :]:
            runs.write(tmp_path / name / f"{split}.jsonl", [{"sentence1": "a", "sentence2": "b", "label": 0}])
    data = MultiTask(["rte", "mrpc"], runs.bert(), places)
    with pytest.raises(InputError, match=r"task 'mrpc': .*/mrpc has no split 'train' to train on; add that file"):
        data.setup("fit")


@pytest.mark.slow
def test_a_run_leaves_a_prompt_for_each_task_that_answers_and_starts_another_run(tmp_path):
    options = ["--model", "MultitaskPrompt", "--model.backbone", runs.bert(), "--model.length", P, "--model.lr", "0.05"]
    options += [
        "--data",
        "MultiTask",
        "--data.tasks",
        f"[{', '.join(TASKS)}]",
        "--data.path",
        f"[{', '.join(folders())}]",
    ]
    options += ["--data.batch_size", 4, "--trainer.max_epochs", 2, "--run_dir", tmp_path / "run", *runs.QUIET]
    code, _, err = runs.call(options)
    assert code == 0, err
    result = json.loads(Path(tmp_path, "run/result.json").read_text())
    assert result["task"] == "multi/single-pair"
    found = result["metrics"]["validation"]
    assert {"mean", "toy/single:accuracy", "toy/pair:accuracy"} <= found.keys()
    assert found["mean"] == pytest.approx((found["toy/single:accuracy"] + found["toy/pair:accuracy"]) / 2)
    assert result["majority"]["validation"].keys() == found.keys() - {"loss"}
    for name in TASKS:
        file = tmp_path / "run/prompts" / f"{name.replace('/', '-')}.safetensors"
        asked = ptune.load(file, device="cpu")
        assert type(asked.model).__name__ == "PromptTuning"
        rows = [json.loads(line) for line in Path(runs.data(name), "validation.jsonl").read_text().splitlines()]
        answers = [next(iter(found))["label"] for found in asked(rows, top_k=1)]
        gold = [asked.data.task.labels[row["label"]] if isinstance(row["label"], int) else row["label"] for row in rows]
        right = sum(answer == label for answer, label in zip(answers, gold, strict=True)) / len(rows)
        assert right == pytest.approx(found[f"{name}:accuracy"])
    with pytest.raises(InputError, match="ask a single task's file in the run's prompts/"):
        ptune.load(tmp_path / "run/prompts.safetensors")
    code, _, err = runs.call([tmp_path / "run", tmp_path / "folder"], export)
    assert (code, (tmp_path / "folder").exists()) == (2, False)
    assert f"{tmp_path / 'run'}: a row does not say of which task it is; ask a single task's file" in err
    single = runs.fit(
        tmp_path / "single", "PromptTuning", model__length=P, trainer__max_epochs=1, model__init=f"run+head:{file}"
    )
    assert single["config"]["init"].startswith(f"run+head:{file}#")


def test_the_method_alone_is_prompt_tuning_with_a_mask(head, tiny):
    model = MultitaskPrompt(backbone=tiny("bert"), head=head("classify"), length=P)
    assert not model.several
    assert ByTask.kind == "by_task"
    assert [tuple(value.shape) for value in model.prompt.parameters()] == [(P, 32), (1, P), (1, 32)]
