"""Prompts to PEFT and back: the adapter gives the scores of the model it was written from, or is refused."""

import json
import logging
import shutil
from dataclasses import replace

import huggingface_hub
import peft
import pytest
import runs
import torch
import transformers
import yaml
from families import often
from torch import nn
from torch.testing import assert_close

import ptune
from ptune.errors import InputError
from ptune.evaluate import main as evaluate
from ptune.export import load_adapter, main, write_adapter
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.p_tuning import PTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning, SoftPrompt
from ptune.prompts import Prompts
from ptune.run import finished
from ptune.serving.folder import eval_results
from ptune.tasks import toy
from ptune.tuning.injected import peft_library
from ptune.tuning.peft_gaps import gaps
from ptune.tuning.reparameterized import Reparameterized
from ptune.tuning.tuner import PromptTuner

P = 4
CLASSES = {
    "classify": transformers.AutoModelForSequenceClassification,
    "regress": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
    "span": transformers.AutoModelForQuestionAnswering,
}
CAUSAL = ("gpt2", "llama")  # their heads for texts have no bias
FAMILIES = ("bert", "roberta", *CAUSAL)
peft_prefix = pytest.mark.peft_prefix


@pytest.fixture
def build(tiny, head):
    """A model with trained tensors far from their start."""

    def make(method, family="bert", task="classify", seed=0, pooler=True, **arguments):
        torch.manual_seed(seed)
        shift = {"shift_positions": True} if method is PTuningV2 else {}
        bias = {"head_bias": family not in CAUSAL or task == "tag"}
        place = tiny(family, pooler=pooler)
        model = method(**{"backbone": place, "head": head(task), "length": P} | shift | bias | arguments)
        model.configure_model()
        for value in model.trained().values():
            value.data.normal_(std=0.5)
        return model.eval()

    return make


def loaded(model, folder, head=True):
    """The adapter in the folder on a fresh model of transformers."""
    cls = CLASSES[model.head_spec.kind] if head else transformers.AutoModel
    labels = {"num_labels": len(model.head_spec.labels) or 1} if head and model.head_spec.kind != "span" else {}
    return peft.PeftModel.from_pretrained(cls.from_pretrained(model.hparams["backbone"], **labels), folder).eval()


def scores(model, inputs):
    """Our scores; with slots in front of the text where the method has some."""
    n, p = len(inputs["input_ids"]), model.slots
    if p:
        ones = torch.ones(n, p, dtype=torch.long)
        inputs = {key: torch.cat([ones, value], dim=1) for key, value in inputs.items()}
        inputs["slots"] = torch.arange(inputs["input_ids"].shape[1]).expand(n, -1) < p
    with torch.no_grad():
        return model(inputs)


def theirs(adapter, inputs):
    """PEFT's scores in our form."""
    with torch.no_grad():
        output = adapter(**inputs)
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    return output.logits


def text(values, inputs, model):
    """Scores of the text: padding left out where there is one score a token."""
    if model.head_spec.kind in ("classify", "regress"):
        return values.view(len(inputs["input_ids"]), -1)
    return values[:, values.shape[1] - inputs["input_ids"].shape[1] :][inputs["attention_mask"].bool()]


@peft_prefix
@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_prefix_gives_the_runs_scores_in_peft_on_padded_texts(build, batch, tmp_path, family, task):
    model, inputs = build(PTuningV2, family, task), batch()
    write_adapter(model, tmp_path)
    found = theirs(loaded(model, tmp_path), inputs)
    assert_close(text(found, inputs, model), text(scores(model, inputs), inputs, model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("task", ["classify", "tag", "span"])
@pytest.mark.parametrize("method", [PromptTuning, PTuning])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_soft_prompt_gives_the_runs_scores_in_peft(build, batch, tmp_path, family, method, task):
    model = build(method, family, task)
    inputs = batch(lengths=(7, 7, 7) if family in CAUSAL else (7, 5, 3))  # PEFT takes a causal head's last position
    write_adapter(model, tmp_path)
    found = theirs(loaded(model, tmp_path), inputs)
    assert_close(text(found, inputs, model), text(scores(model, inputs), inputs, model), rtol=1e-5, atol=1e-5)


@peft_prefix
@pytest.mark.parametrize("std", [0.02, 0.5])
def test_a_roberta_without_pooler_is_exported_through_a_head_that_is_linear_to_float_error(build, batch, tmp_path, std):
    model, inputs = build(PTuningV2, "roberta", pooler=False), batch()
    model.head.linear.weight.data.normal_(std=std)
    assert model.backbone.pooling == "first"
    write_adapter(model, tmp_path)
    assert_close(theirs(loaded(model, tmp_path), inputs), scores(model, inputs), rtol=1e-5, atol=1e-5)


@peft_prefix
@pytest.mark.parametrize("family", often(["bert", "llama"], ["bert"]))
@pytest.mark.parametrize("form", [{"mlp": 8}, {"form": "hidden"}, {"scaled": True}], ids=str)
def test_a_reparameterized_prefix_is_exported_as_what_it_computes(build, batch, tmp_path, family, form):
    model, inputs = build(PTuningV2, family, **form), batch()
    assert gaps(model) == gaps(type(model)(**model.hparams)) == [], "also before its weights are loaded"
    write_adapter(model, tmp_path)
    assert_close(theirs(loaded(model, tmp_path), inputs), scores(model, inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning")  # PEFT passes it
@pytest.mark.parametrize("family", FAMILIES)
def test_without_its_head_a_prefix_gives_the_runs_hidden_states(build, batch, tmp_path, family):
    model, inputs = build(PTuningV2, family, "choice", pool="mean"), batch()
    write_adapter(model, tmp_path, head=False)
    with torch.no_grad():
        found = loaded(model, tmp_path, head=False)(**inputs).last_hidden_state
        own = model.backbone(inputs, model.prompts(inputs))
    mask = inputs["attention_mask"].bool()
    assert_close(found[mask], own[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [pytest.param(PTuningV2, marks=peft_prefix), PromptTuning])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_exported_is_loaded_again_with_bit_equal_scores(build, batch, tmp_path, family, method):
    model, other = build(method, family, "tag"), build(method, family, "tag", seed=1)
    write_adapter(model, tmp_path)
    load_adapter(other, tmp_path)
    assert torch.equal(scores(other, batch()), scores(model, batch()))


@peft_prefix
def test_an_adapter_names_the_package_of_its_backbone_and_no_folder_of_this_machine(build, tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny("bert"), tmp_path / "some_package" / "model")
    (tmp_path / "some_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    write_adapter(build(PTuningV2, backbone="package:some_package/model"), tmp_path / "adapter")
    text = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] == "package:some_package/model"
    assert str(tmp_path) not in text


PEFTS = {
    "prefix": (peft.PrefixTuningConfig, {}, PTuningV2, {}),
    "prefix, projected": (
        peft.PrefixTuningConfig,
        {"prefix_projection": True, "encoder_hidden_size": 8},
        PTuningV2,
        {"mlp": 8},
    ),
    "prompt": (peft.PromptTuningConfig, {}, PromptTuning, {}),
    "p-tuning": (peft.PromptEncoderConfig, {"encoder_hidden_size": 8}, PromptTuning, {}),
    "p-tuning into v1": (peft.PromptEncoderConfig, {"encoder_hidden_size": 8}, PTuning, {}),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", [pytest.param(name, marks=peft_prefix if "prefix" in name else ()) for name in PEFTS])
def test_an_adapter_that_peft_made_scores_here_as_there_and_stays_trainable(build, batch, tmp_path, family, name):
    config, options, method, arguments = PEFTS[name]
    model, inputs = build(method, family, "tag", **arguments), batch()
    base = CLASSES["tag"].from_pretrained(model.hparams["backbone"], num_labels=3)
    torch.manual_seed(1)
    adapter = peft.get_peft_model(base, config(task_type="TOKEN_CLS", num_virtual_tokens=P, **options)).eval()
    adapter.save_pretrained(tmp_path)
    load_adapter(model, tmp_path)
    found = theirs(adapter, inputs)
    assert_close(text(found, inputs, model), text(scores(model, inputs), inputs, model), rtol=1e-5, atol=1e-5)
    assert all(value.requires_grad for value in model.trained().values())


# ---- refusals


def test_slots_within_a_template_are_refused(build, tmp_path):
    model = build(PromptTuning, "gpt2")
    model.head_spec = replace(model.head_spec, template="{text} [P:3] It was [MASK].")
    with pytest.raises(InputError, match="has slots of its own, and PEFT puts a soft prompt in front"):
        write_adapter(model, tmp_path / "adapter", head=False)


@pytest.mark.parametrize(
    ("method", "family", "arguments", "message"),
    [
        (PTuningV2, "bert", {"shift_positions": False}, "shift_positions: false, but PEFT shifts"),
        (
            PTuningV2,
            "bert",
            {"shift_positions": False, "init": "identity"},
            r"gate: true \(also init: id.*, but PEFT has no gates",
        ),
        (PTuningV2, "bert", {"layers": "last:2"}, r"layers: \[1, 2\] are prompted, but PEFT prompts all"),
        (PTuningV2, "bert", {"task": "choice"}, "head: PEFT has no model with a head of the kind 'choice'"),
        (PTuningV2, "llama", {"head_bias": True}, "head_bias: true, but the head of LlamaForSequenceClass.*--no-head"),
        (PTuningV2, "deberta", {}, "cannot prompt AutoModelForSequenceClassification .* past key values"),
        (PromptTuning, "electra", {}, "embeddings are narrower than layers"),
        (PromptTuning, "t5", {}, "of an encoder-decoder, PEFT prompts the decoder"),
        (PTuning, "bert", {"backbone_lr": 1e-5}, "backbone_lr: 1e-05 trains tensors of the backbone, too"),
        (PTuningV2, "bert", {"also": ["bias"]}, r"also: \['bias'\] trains tensors of the backbone, .* leave it out"),
        (LinearProbe, "bert", {}, "model: LinearProbe has no prompt for PEFT"),
    ],
)
def test_what_peft_cannot_express_is_refused_with_the_reason(build, tmp_path, method, family, arguments, message):
    if method is LinearProbe:
        model = LinearProbe(backbone=runs.bert(), head=build(PTuningV2).head_spec)
    else:
        model = build(method, family, **arguments)
        model.head.requires_grad_(True)
    with pytest.raises(InputError, match=message):
        write_adapter(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_all_reasons_are_given_at_once_and_before_training(build, tmp_path, tiny, head):
    arguments = {"layers": "last:2", "pool": "mean", "length": P}
    untrained = PTuningV2(backbone=tiny("bert"), head=head("classify"), **arguments)
    parts = [
        "layers: [1, 2] are prompted",
        "shift_positions: false, but PEFT shifts",
        "`pool: mean` does; use pool: pool",
    ]
    found = gaps(untrained)
    assert untrained.backbone is None, "no weights are needed"
    assert [part in reason for part, reason in zip(parts, found, strict=True)] == [True] * 3
    assert gaps(untrained, head=False) == found[:2]
    with pytest.raises(InputError, match=r"for 3 reasons: \(1\) layers.*; \(2\) shift_positions.*; \(3\) pool: .*\.$"):
        write_adapter(build(PTuningV2, shift_positions=False, **arguments), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_that_can_be_exported_has_no_gaps(build, family):
    assert gaps(build(PTuningV2, family)) == []


class Residual(PromptTuner):
    """A soft prompt that is the sum of two tables, which nothing but its folded form makes exportable."""

    slot_argument = "length"

    def __init__(self, length, **common):
        super().__init__(**common)
        self.prompt = Sum(length, self.spec.embedding_width)

    def prompts(self, batch):
        return Prompts(embeds=self.prompt())


class Sum(Reparameterized):
    def __init__(self, length, width):
        super().__init__()
        self.one, self.other = (nn.Parameter(torch.randn(length, width)) for _ in range(2))

    def forward(self):
        return (self.one + self.other)[None]

    def folded(self):
        prompt = SoftPrompt(*self.one.shape)
        prompt.vectors.data.copy_(self()[0])
        return prompt


def test_a_method_of_ones_own_that_folds_into_vectors_is_exported_and_loaded(build, batch, tmp_path):
    model, other = build(Residual, "gpt2", "tag"), build(Residual, "gpt2", "tag", seed=1)
    inputs = batch(lengths=(7, 7, 7))
    write_adapter(model, tmp_path)
    assert_close(theirs(loaded(model, tmp_path), inputs), scores(model, inputs), rtol=1e-5, atol=1e-5)
    load_adapter(other, tmp_path)
    model.fold()
    assert torch.equal(scores(other, inputs), scores(model, inputs))


def test_warnings_about_other_libraries_kernels_are_not_shown():
    peft_library()
    assert not logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)


@peft_prefix
@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        ("bert", {"pool": "mean"}, "BertForSequenceClassification may read .* `pool: mean`.*--no-head"),
        ("mistral", {"head_bias": False}, "scores would differ"),  # its window is narrow, out of which a cache falls
    ],
)
def test_an_adapter_of_other_scores_is_not_written(build, tmp_path, family, arguments, message):
    with pytest.raises(InputError, match=message):
        write_adapter(build(PTuningV2, family, **arguments), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_soft_prompt_behind_a_special_token_is_refused_both_ways(build, tmp_path):
    write_adapter(build(PromptTuning), tmp_path / "one")
    model = PromptTuning(backbone=runs.bert(), head=build(PromptTuning).head_spec, length=P)  # its tokenizer adds [CLS]
    for action in (lambda: write_adapter(model, tmp_path / "two"), lambda: load_adapter(model, tmp_path / "one")):
        with pytest.raises(InputError, match="in front of its first special token, ptune behind it"):
            action()


def test_a_folder_that_holds_something_is_refused_and_stays_as_it_is(build, tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(InputError, match="is not an empty folder; give another"):
        write_adapter(build(PTuningV2), tmp_path)
    assert runs.contents(tmp_path) == {"note": b"mine"}


@peft_prefix
@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        (PTuningV2, {"length": 5}, r"its prompt is \[4, 192\], the model's \[5, 192\]; fit --model.length"),
        (PTuningV2, {"task": "span"}, r"its head \(.*weight \[3, 32\].*\) is not this model's; .*head=False"),
        (PTuningV2, {"shift_positions": False}, "shift_positions: false, but PEFT shifts"),
        (PromptTuning, {}, "holds a PREFIX_TUNING adapter, which a PromptTuning cannot load"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_with_what_differs(build, tmp_path, method, arguments, message):
    write_adapter(build(PTuningV2), tmp_path)
    model = build(method, **arguments)
    before = {key: value.clone() for key, value in model.trained().items()}
    with pytest.raises(InputError, match=message):
        load_adapter(model, tmp_path)
    assert_close(dict(model.trained()), before, rtol=0, atol=0)


@peft_prefix
def test_without_its_head_an_adapter_loads_into_a_model_of_another_task(build, tmp_path):
    model, other = build(PTuningV2), build(PTuningV2, task="span", seed=1)
    write_adapter(model, tmp_path)
    before = other.head.linear.weight.clone()
    load_adapter(other, tmp_path, head=False)
    assert torch.equal(other.prompt.encoder.flat, model.prompt.encoder.flat)
    assert torch.equal(other.head.linear.weight, before)


def test_a_folder_without_an_adapter_is_refused(build, tmp_path):
    for text in (None, "no tensors"):
        if text:
            (tmp_path / "adapter_config.json").write_text("{}")
            (tmp_path / "adapter_model.safetensors").write_text(text)
        with pytest.raises(InputError, match="not a folder with a PEFT adapter"):
            load_adapter(build(PTuningV2), tmp_path)


@peft_prefix
def test_the_head_of_spans_is_loaded_without_a_bias_that_chooses_no_span(build, batch, tmp_path):
    model, other = build(PTuningV2, task="span"), build(PTuningV2, task="span", seed=1)
    write_adapter(model, tmp_path)
    load_adapter(other, tmp_path)
    assert torch.equal(scores(other, batch()), scores(model, batch()))


# ---- the command


@peft_prefix
def test_the_command_exports_a_run_and_prints_python_that_loads_it(tmp_path, capsys):
    runs.fit(tmp_path / "run", model__shift_positions=True, model__length=3, trainer__max_epochs=1)
    before = runs.contents(tmp_path / "run")
    assert main([str(tmp_path / "run"), str(tmp_path / "adapter")]) == 0
    names = {}
    exec(capsys.readouterr().out, names)  # what it prints is Python
    model, data = finished.read(tmp_path / "run")
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        assert_close(names["model"].eval()(**inputs).logits, model(batch), rtol=1e-5, atol=1e-5)
    assert runs.contents(tmp_path / "run") == before
    card = check_folder(tmp_path / "run", tmp_path / "adapter")
    assert 'PeftModel.from_pretrained(model, "FOLDER")' in card.text
    code = card.text.partition("With PEFT")[2].partition("## Training")[0]
    assert '.from_pretrained("BACKBONE", num_labels=2)' in code
    assert str(tmp_path) not in code
    assert runs.bert() not in code


def check_folder(run_dir, folder):
    """The folder alone gives the run's scores, and its card says what the run measured."""
    asked, again = ptune.load(run_dir, device="cpu"), ptune.load(folder, device="cpu")
    rows = [asked.checked(row) for row in toy.generate(asked.data.task.name, "test")[:5]]
    ((_, _, own),) = asked.scored(rows, batch_size=8)
    for other in (again, ptune.load(folder / "prompts.safetensors", device="cpu")):
        ((_, _, found),) = other.scored(rows, batch_size=8)
        assert torch.equal(own, found)
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.tags[:2] == ["ptune", "prompt-tuning"]
    assert asked.model.backbone.fingerprint in card.text
    assert "path" not in yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]
    return card


@pytest.mark.parametrize("method", ["LoRA", "ManualPrompt"])
def test_what_peft_cannot_take_gets_the_folder_of_ptune(tmp_path, capsys, method):
    if method == "LoRA":
        result = runs.fit(tmp_path / "run", method, trainer__max_epochs=1)
    else:
        words = {"template": "{sentence1} who? {sentence2} [MASK]", "verbalizer": "{no: judge, yes: baker}"}
        words |= {"demonstrations": 1, "max_length": 64}
        options = {f"data__{name}": value for name, value in words.items()}
        line = runs.line(tmp_path / "run", method, model__backbone=runs.bert(lm=True), **options)
        assert runs.call(line, evaluate)[0] == 0
        result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    names = [str(tmp_path / "run"), str(tmp_path / "folder"), "--license", "mit"]
    assert main([*names, "--to", "peft"]) == 2
    assert not (tmp_path / "folder").exists()
    capsys.readouterr()
    assert main(names) == 0
    out = capsys.readouterr().out
    assert out.startswith("# No adapter for PEFT: ")
    exec(out, found := {})
    assert found["ask"](("the nurse", "the pilot")).keys() == {"label", "score"}
    assert {file.name for file in (tmp_path / "folder").iterdir()} == {
        "README.md",
        "config.yaml",
        "prompts.safetensors",
    }
    card = check_folder(tmp_path / "run", tmp_path / "folder")
    assert (card.data.license, card.data.pipeline_tag) == ("mit", "text-classification")
    said = {(e.dataset_split, e.metric_type): (e.metric_value, e.dataset_args) for e in card.data.eval_results}
    for split, values in result["metrics"].items():
        assert said[split, "accuracy"] == (values["accuracy"], {"rows": result["rows"][split]})


def test_the_hubs_own_results_name_its_data_set():
    result = {
        "monitor": "accuracy",
        "metrics": {"validation": {"accuracy": 0.7, "loss": 1}},
        "rows": {"validation": 277},
    }
    (entry,) = huggingface_hub.parse_eval_result_entries(eval_results(ptune.task("rte"), result))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("nyu-mll/glue", "rte", 0.7)
    assert entry.notes == "accuracy on validation, 277 rows"
    assert eval_results(ptune.task("toy/pair"), result) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: run_dir, folder; usage: python -m ptune.export"),
        (["missing", "x"], "missing: does not exist; give the directory of a finished run"),
        (["started", "x"], "there is no prompts.safetensors; give the directory of a finished run"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence_and_exit_code_2(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "config.yaml").write_text("")
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
