"""A trained prompt that is asked: answers in the forms of transformers' pipelines, scores of an evaluation."""

import json
import types

import datasets
import pandas as pd
import pyarrow.parquet as pq
import pytest
import runs
import torch
from methods_table import TABLE

import ptune
from ptune.errors import InputError
from ptune.heads.metrics import measure
from ptune.tasks import toy
from ptune.tuning import saving

WORDS = {"data__template": "{sentence1} who? {sentence2} [MASK]", "data__verbalizer": "{no: judge, yes: baker}"}
RUNS = {
    "pair": ("PTuningV2", "toy/pair", {}),
    "template": ("PTuning", "toy/pair", {"model__backbone": runs.bert(lm=True), "model__length": 3, **WORDS}),
    "choice": ("PromptTuning", "toy/choice", {"model__length": 3}),
    "qa": ("BitFit", "toy/qa", {}),
    "tagging": ("LoRA", "toy/tagging", {}),
}


KEYS = ("label", "answers", "tags")
COLUMNS = ("row", "answer", "score", "right", "gold")


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory):
    """A finished run of each format: its name, directory, task, and the scores of its evaluation, batch by batch."""
    method, task, options = RUNS[request.param]
    run_dir = tmp_path_factory.mktemp("answers") / "run"
    seen = {}
    step = ptune.PromptTuner.validation_step

    def spied(self, batch, batch_idx):
        kept = {}
        forward = self.head.register_forward_hook(lambda *args: kept.update(scores=args[-1]))
        result = step(self, batch, batch_idx)
        forward.remove()
        seen.setdefault(self.split, []).append(kept["scores"].clone())
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ptune.PromptTuner, "validation_step", spied)
        runs.fit(run_dir, method, task, trainer__max_epochs=1, **options)
    return types.SimpleNamespace(name=request.param, directory=run_dir, task=task, scores=seen)


def rows_of(run, split="test"):
    """The rows of a split without their labels."""
    rows = [json.loads(line) for line in (runs.Path(runs.data(run.task)) / f"{split}.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in KEYS} for row in rows]


@pytest.mark.parametrize("file", ["", "prompts.safetensors", "best.ckpt"])
def test_scores_are_those_of_the_evaluation_bit_for_bit(run, file):
    asked = ptune.load(run.directory / file, batch_size=4)
    rows = rows_of(run)
    found = [scores for _, _, scores in asked.scored([asked.checked(row) for row in rows])]
    assert len(found) == len(run.scores["final/test"]) == 2
    for ours, theirs in zip(found, run.scores["final/test"], strict=True):
        assert torch.equal(ours, theirs)


def test_answers_are_what_the_evaluation_counts(run):
    asked, rows = ptune.load(run.directory), rows_of(run)
    labelled = asked.data
    labelled.path, labelled.batch_size = runs.data(run.task), 8
    labelled.setup("validate")
    (batch,) = labelled.loader("test")
    order = labelled.loader("test").sampler.order()
    with torch.inference_mode():
        asked.model.metrics.update(asked.model(batch), batch)
    right = asked.model.metrics.head.right(asked.model.metrics.rows[-1].view(len(rows), -1))
    for number, correct in zip(order, right, strict=True):
        answer, gold = asked(rows[number]), toy.generate(run.task, "test")[number]
        match run.name:
            case "pair" | "template":
                assert answer.keys() == {"label", "score"}
                assert (answer["label"] == ["no", "yes"][gold["label"]]) == correct
            case "choice":
                assert answer.keys() == {"label", "score", "answer"}
                assert (answer["answer"] == gold[asked.data.task.choices[gold["label"]]]) == correct
            case "qa":
                assert answer.keys() == {"score", "start", "end", "answer"}
                assert answer["answer"] == gold["context"][answer["start"] : answer["end"]]
                assert (answer["answer"] in gold["answers"]["text"]) == correct
            case "tagging":
                text = " ".join(gold["tokens"])
                assert all(entity["word"] == text[entity["start"] : entity["end"]] for entity in answer)
                if correct:
                    assert len(answer) == sum(tag.startswith("B-") for tag in gold["tags"])


def test_the_predictions_of_a_run_are_its_answers_and_give_its_metrics(run):
    result = json.loads((run.directory / "result.json").read_text())
    asked = ptune.load(run.directory, batch_size=4)
    for split, metrics in result["metrics"].items():
        kept = pq.read_table(run.directory / "predictions" / f"{split}.parquet").to_pydict()
        head, spec = asked.model.metrics.head, asked.model.head_spec
        table = torch.tensor([kept[f"table/{name}"] for name in head.columns(spec)]).T
        assert measure(spec, table) == pytest.approx({k: v for k, v in metrics.items() if k != "loss"}, abs=1e-7)
        assert kept["row"] == list(range(result["rows"][split]))
        if "accuracy" in metrics and run.name != "tagging":
            assert sum(kept["right"]) / len(kept["right"]) == pytest.approx(metrics["accuracy"], abs=1e-7)
        gold = toy.generate(run.task, split)
        names = asked.data.task.labels
        for row, answer, score, right, true in zip(*(kept[k] for k in COLUMNS), strict=True):
            match run.name:
                case "qa":
                    assert true == gold[row]["answers"]["text"]
                    assert right == (answer in true)
                case "tagging":
                    assert true == gold[row]["tags"]
                    assert right == (answer == true)
                    assert len(score) == len(answer)
                case _:
                    assert true == names[gold[row]["label"]]
                    assert right == (answer == true)
        if run.name != "tagging":
            found = asked([{k: v for k, v in row.items() if k not in KEYS} for row in gold[: len(kept["row"])]])
            assert [answer["score"] for answer in found] == kept["score"]
            name = "answer" if run.name == "qa" else "label"
            assert [answer[name] for answer in found] == kept["answer"]


def test_lists_datasets_and_iterators_keep_the_order(run):
    asked, rows = ptune.load(run.directory), rows_of(run)
    one_by_one = [asked(row) for row in rows]
    for found in (asked(rows), asked(datasets.Dataset.from_list(rows)), list(asked(iter(rows), batch_size=2))):
        assert json.loads(json.dumps(found), parse_float=lambda x: round(float(x), 4)) == json.loads(
            json.dumps(one_by_one), parse_float=lambda x: round(float(x), 4)
        )


@pytest.mark.parametrize(
    ("rows", "more", "sentence"),
    [
        ([{"sentence1": "a"}], {}, "row 1: no column 'sentence2'; the row has 'sentence1'."),
        (
            datasets.Dataset.from_dict({"a": ["x"], "b": ["y"]}),
            {},
            "row 1: no column 'sentence1'; the row has 'a', 'b'.",
        ),
        ({}, {}, "row 1: no column 'sentence1'; the row has no column at all."),
        (None, {}, "None is neither a text nor a row nor rows; give a text"),
        (3, {}, "3 is neither a text nor a row nor rows"),
        (b"a", {}, "b'a' is neither a text nor a row nor rows"),
        (b"", {}, "b'' is neither a text nor a row nor rows"),
        (pd.DataFrame({"sentence1": ["a"], "sentence2": ["b"]}), {}, "a pandas DataFrame is no list of rows"),
        (
            datasets.DatasetDict({"train": datasets.Dataset.from_list([]), "x": datasets.Dataset.from_list([])}),
            {},
            "a DatasetDict is no list of rows; give one of its splits by its name: 'train', 'x'.",
        ),
        ([None], {}, "row 1: None is neither a text"),
        ([3], {}, "row 1: 3 is neither a text"),
        (("a", 3), {}, "row 1: ('a', 3) is neither a text"),
        (["a"], {}, "row 1: 1 text for a task that reads 2"),
        ([("a", "b"), {"sentence1": "a", "sentence2": "b"}, b"a"], {}, "row 3: b'a' is neither a text"),
        ([("a", "b"), ("a",)], {}, "row 2: 1 text for a task that reads 2 (sentence1, sentence2); give a tuple of 2"),
        ([("a", "b"), 3], {}, "row 2: 3 is neither a text"),
        ([], {"top_k": 0}, "top_k: 0 must be"),
        ([], {"batchsize": 2}, "batchsize: is no argument"),
    ],
)
def test_a_wrong_row_is_named_by_its_number(built, rows, more, sentence):
    asked, _ = built(("sentence1", "sentence2"))
    with pytest.raises(InputError) as error:
        asked(rows, **more)
    assert str(error.value).startswith(sentence)


@pytest.fixture
def built(tmp_path):
    """An untrained model of a task with these columns, saved and loaded; and its file."""

    def build(
        text, labels=("no", "yes", "maybe"), method=ptune.LinearProbe, module=ptune.Classification, task=None, **options
    ):
        metrics = ("accuracy",) if labels else ("pearson",)
        task = task or ptune.TaskSpec("own", text=text, labels=labels, metrics=metrics)
        backbone = runs.bert(lm=bool(options.get("template")))
        arguments = options.pop("model", {})
        slots = arguments.get("length", 0) if method.slot_argument else 0
        data = module(task, backbone, slots=slots, max_length=48, **options)
        model = method(backbone=backbone, head=data.head, **arguments)
        model.configure_model()
        torch.manual_seed(1)
        for value in model.trained().values():
            torch.nn.init.normal_(value, std=0.3)
        model.check_data(data)
        model.save_prompts(tmp_path / "p.safetensors")
        return ptune.load(tmp_path / "p.safetensors"), model.eval()

    return build


def close(found, expected):
    """Equal but for rounding."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[key], expected[key]) for key in expected)
    return found == pytest.approx(expected, abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_user_swaps_a_pipeline_for_it(built):
    import transformers

    texts = ["the nurse thanked the pilot", "who?", "the judge was thanked by the baker"]
    asked, model = built(("a",), model={"pool": "pooler"})
    theirs = transformers.BertForSequenceClassification.from_pretrained(
        runs.bert(), num_labels=3, id2label=dict(enumerate(("no", "yes", "maybe")))
    ).eval()
    theirs.classifier.load_state_dict(model.head.linear.state_dict())
    tokenizer = transformers.AutoTokenizer.from_pretrained(runs.bert())
    pipeline = transformers.pipeline("text-classification", model=theirs, tokenizer=tokenizer, device="cpu")
    for rows in (texts[0], texts, texts[:1], {"text": texts[0]}, [{"text": text} for text in texts]):
        assert close(asked(rows), pipeline(rows))
        for top_k in (1, 2, None):
            assert close(asked(rows, top_k=top_k), pipeline(rows, top_k=top_k))
    pairs = [{"text": texts[0], "text_pair": texts[1]}, {"text": texts[2], "text_pair": texts[0]}]
    asked, model = built(("a", "b"), model={"pool": "pooler"})
    theirs.classifier.load_state_dict(model.head.linear.state_dict())
    assert close(asked(pairs), pipeline(pairs))
    assert close(asked([tuple(pair.values()) for pair in pairs]), pipeline(pairs))
    tags = ("O", "B-X", "I-X")
    task = ptune.TaskSpec("own", "tagging", text=("tokens",), labels=tags)
    asked, model = built((), task=task, module=ptune.Tagging)
    theirs = transformers.BertForTokenClassification.from_pretrained(
        runs.bert(), num_labels=3, id2label=dict(enumerate(tags))
    ).eval()
    theirs.classifier.load_state_dict(model.head.linear.state_dict())
    pipeline = transformers.pipeline("token-classification", model=theirs, tokenizer=tokenizer, device="cpu")
    found = asked(texts)
    assert sum(map(len, found)) > 3
    assert close(found, pipeline(texts, aggregation_strategy="simple"))
    assert close(asked([text.split() for text in texts[::2]]), found[::2])


@pytest.mark.parametrize("name", [name for name in TABLE if name != "manual"])
def test_every_method_is_loaded_from_its_file_alone(built, name):
    case = TABLE[name]
    asked, model = built(("a", "b"), method=case.method, model=case.given())
    checked = [asked.checked(("the nurse", "the pilot thanked the baker")), asked.checked(("who?", "the judge"))]
    ((_, batch, scores),) = asked.scored(checked)
    with torch.inference_mode():
        assert torch.equal(scores, model(batch))


def test_a_number_is_answered_with_the_name_of_its_column(built):
    asked, _ = built(("a",), labels=())
    (answer,) = asked("the nurse")
    assert answer.keys() == {"label", "score"}
    assert answer["label"] == "label"
    assert asked(["the nurse"]) == [answer]


def test_a_language_model_answers_in_classes_and_in_words(built):
    from ptune.methods.manual import ManualPrompt

    asked, _ = built(
        ("a",), ("no", "yes"), ManualPrompt, template="{a} [MASK].", verbalizer={"no": "judge", "yes": "baker"}
    )
    assert {answer["label"] for answer in asked("the nurse", top_k=None)} == {"no", "yes"}
    task = ptune.TaskSpec("own", "fill", text=("a",), metrics=("precision_at_1",), template="{a} [MASK].")
    asked, _ = built((), (), ManualPrompt, ptune.Fill, task, template="task")
    five = asked("the nurse thanked the")
    assert [answer.keys() for answer in five] == [{"score", "token", "token_str", "sequence"}] * 5
    assert five == sorted(five, key=lambda answer: -answer["score"])
    assert five[0]["sequence"] == f"the nurse thanked the {five[0]['token_str']}."
    assert len(asked(["the nurse"], top_k=2)[0]) == 2


@pytest.mark.parametrize("nullable", [False, True])
def test_a_question_has_ranked_answers_over_all_windows_of_its_context(built, nullable):
    task = ptune.TaskSpec("own", "span_qa", text=("question", "context"), label="answers", metrics=("f1",))
    asked, _ = built((), module=ptune.SpanQA, task=task, stride=8)
    asked.data.nullable = nullable
    context = " ".join(f"the {first} thanked the {second}." for first in toy.PEOPLE[:5] for second in toy.PEOPLE[:3])
    row = {"question": "who?", "context": context}
    ((_, batch, _),) = asked.scored([asked.checked(row)])
    assert len(batch["input_ids"]) > 2, "windows"
    ranked = asked(row, top_k=None)
    assert len(ranked) == 20
    assert ranked[0] == asked(row)
    assert [answer["score"] for answer in ranked] == sorted((answer["score"] for answer in ranked), reverse=True)
    assert len({(answer["start"], answer["end"]) for answer in ranked}) == 20
    assert all(answer["answer"] == context[answer["start"] : answer["end"]] for answer in ranked)
    assert asked(**row, top_k=3) == ranked[:3]
    assert asked([row, tuple(row.values())], top_k=1) == [ranked[:1]] * 2
    every = asked(row, top_k=10**12)
    assert every[:20] == ranked
    assert sum(answer["answer"] == "" for answer in every) == nullable
    assert asked([], top_k=3) == asked([]) == []


# ---- what is loaded


def test_a_predictor_of_a_model_that_is_not_loaded_loads_it():
    words = {"no": "judge", "yes": "baker"}
    data = ptune.Classification("toy/pair", runs.bert(lm=True), template="{sentence1} [MASK]", verbalizer=words)
    asked = ptune.Predictor(ptune.ManualPrompt(backbone=runs.bert(lm=True), head=data.head), data)
    assert asked(("who?", "the nurse"))["label"] in words


def test_what_was_learned_from_the_data_is_saved(built, tmp_path):
    task = ptune.TaskSpec("own", "span_qa", text=("question", "context"), label="answers", metrics=("f1",))
    data = ptune.SpanQA(task, runs.bert(), max_length=48, stride=3, null_threshold=-1e9)
    data.nullable = True
    model = ptune.LinearProbe(backbone=runs.bert(), head=data.head)
    model.configure_model()
    model.check_data(data)
    model.save_prompts(tmp_path / "p.safetensors")
    asked = ptune.load(tmp_path / "p.safetensors")
    assert (asked.data.stride, asked.data.nullable) == (3, True)
    answer = asked(question="who?", context="the nurse thanked the pilot")
    assert (answer["answer"], answer["start"], answer["end"]) == ("", 0, 0)
    assert 0 < answer["score"] < 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"recipe": "{}"}, "does not say how its rows are read"),
        ({"method": "os.system"}, "model is 'os.system', no class of ptune, so it is not executed"),
        ({"recipe": '{"class": "C", "arguments": {}}'}, "data is 'C', no class of ptune"),
        ({"recipe": '{"class": "Classification", "arguments": {}, "learned": {}}'}, "is of another version of ptune"),
        ({"arguments": "{"}, "its arguments is not JSON"),
    ],
)
def test_a_file_that_cannot_be_asked_is_one_sentence(built, tmp_path, change, sentence):
    built(("a",))
    tensors, metadata = saving.load(tmp_path / "p.safetensors")
    saving.save(tmp_path / "q.safetensors", tensors, metadata | change)
    with pytest.raises(InputError, match=sentence):
        ptune.load(tmp_path / "q.safetensors")


def test_a_hub_id_is_loaded_from_its_files_alone(built, tmp_path, monkeypatch):
    import huggingface_hub

    asked, _ = built(("a",))
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "p.safetensors").rename(tmp_path / "snapshot" / "prompts.safetensors")

    def download(name, allow_patterns):
        assert (name, set(allow_patterns)) == ("me/prompt", {"prompts.safetensors", "config.yaml"})
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert ptune.load("me/prompt", device="cpu")("the nurse") == asked("the nurse")


def test_what_is_nowhere_is_one_sentence(tmp_path, monkeypatch):
    import huggingface_hub

    def unreached(*_, **__):
        raise OSError("no route to the hub\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreached)
    with pytest.raises(InputError, match=r"me/prompt: there is no such folder here, .* \(no route to the hub\)\.$"):
        ptune.load("me/prompt")
    with pytest.raises(InputError, match="does not exist; give a run directory"):
        ptune.load(tmp_path / "p.safetensors")
    with pytest.raises(InputError, match=r"there is no config\.yaml"):
        ptune.load(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_plain_trainer_tests_and_predicts(trainer):
    data = ptune.Classification("toy/pair", runs.bert(), path=runs.data(), batch_size=2)
    model, runner = ptune.LinearProbe(backbone=runs.bert(), head=data.head), trainer()
    (values,) = runner.test(model, data, verbose=False)
    (again,) = runner.validate(model, data.loader("test"), verbose=False)
    assert values["test/accuracy"] == again["val/accuracy"]
    scores = torch.cat(runner.predict(model, data))
    rows = [json.loads(line) for line in (runs.Path(runs.data()) / "test.jsonl").read_text().splitlines()]
    right = [score.argmax() == row["label"] for score, row in zip(scores, rows, strict=True)]
    assert sum(right) / len(rows) == pytest.approx(values["test/accuracy"])
