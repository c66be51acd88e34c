"""What every method promises: what moves, what is counted, saved and loaded."""

import errno
import math
import os
import re
import shutil
import stat
from dataclasses import replace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from methods_table import BERT, TABLE, names
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

from ptune.errors import InputError
from ptune.methods.fine_tuning import FineTuning
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import SoftPrompt
from ptune.run.callbacks import Beginning
from ptune.tuning.tuner import PromptTuner

HEAD = {"head.linear.weight", "head.linear.bias"}
each_method = pytest.mark.parametrize("name", names())
LABELS = torch.tensor([0, 1, 2])


@pytest.fixture
def build(tiny, head):
    """A model of TABLE with its weights loaded: build("prefix")."""

    def make(name, family="bert", seed=0, task="classify", **arguments):
        case = TABLE[name]
        torch.manual_seed(seed)
        options = {"backbone": tiny(family), "head": head(task), "lr": 0.1, "schedule": "constant"}
        model = case.method(**options | case.arguments | arguments)
        model.configure_model()
        return model

    return make


@pytest.fixture
def batch(batch):
    """Batches with prompt slots at the second and third token of each text."""
    slots = torch.tensor([False, True, True, False, False, False, False]).expand(3, -1)
    return lambda **columns: batch(slots=slots, **columns)


@pytest.fixture
def train(fit, batch):
    """Three steps on the same batch: train(model) -> its Trainer."""
    types = torch.arange(7).expand(3, -1) // 4  # XLNet has tensors that only these read
    return lambda model, **options: fit(model, [batch(labels=LABELS, token_type_ids=types)] * 3, **options)


def snapshot(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def scores(model, inputs):
    """Scores without dropout, which a run leaves on."""
    with torch.no_grad():
        return model.eval()(inputs)


# ---- what moves


@each_method
def test_after_a_real_run_exactly_what_is_declared_has_moved(build, train, name):
    model = build(name)
    before = snapshot(model)
    assert train(model).global_step == 3
    moved = {key for key, value in snapshot(model).items() if not torch.equal(value, before[key])}
    own = TABLE[name].trained
    declared = HEAD | ({key for key in before if key.startswith("backbone.")} if own is None else own)
    assert set(model.trained()) == declared
    assert moved == declared
    assert {key for key, value in model.named_parameters() if value.grad is not None or value.requires_grad} == declared


@pytest.mark.parametrize(
    "family",
    [
        "roberta",
        "electra",
        "gpt2",
        "llama",
        "distilbert",
        "modernbert",
        "opt",
        "deberta",
        "mpnet",
        "albert",
        "t5",
        "bart",
    ],
)
@pytest.mark.parametrize("name", ["fine-tuning", "prefix", "soft prompt"])
def test_it_is_so_with_other_backbones(build, train, name, family):
    model = build(name, family)
    before = snapshot(model)
    train(model)
    assert {key for key, value in snapshot(model).items() if not torch.equal(value, before[key])} == set(
        model.trained()
    )


@pytest.mark.parametrize("family", ["xlnet", "deberta-v2", "bloom"])
@pytest.mark.parametrize("name", ["fine-tuning", "linear probe", "soft prompt"])
def test_every_backbone_can_be_tuned_without_a_prefix(build, train, batch, name, family):
    model = build(name, family)
    before = snapshot(model)
    train(model)
    moved = {key for key, value in snapshot(model).items() if not torch.equal(value, before[key])}
    assert moved == set(model.trained())
    if name == "fine-tuning":
        unread = {"backbone.model.mask_emb"} if family == "xlnet" else set()  # for its pretraining
        assert {key for key in before if key.startswith("backbone.")} - moved == unread
    assert scores(model, batch()).shape == (3, 3)


def test_a_tensor_that_is_trained_undeclared_or_declared_untrained_stops_the_run(tiny, head):
    model = PTuningV2(backbone=tiny("bert"), head=head("classify"))
    model.head.requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"head\.linear\.weight: declared True, requires_grad False"):
        model.configure_model()
    model = LinearProbe(backbone=tiny("bert"), head=head("classify"))
    model.stray = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"stray\.weight: declared False, requires_grad True"):
        model.configure_model()


@each_method
def test_processes_exchange_the_trained_tensors_alone(build, name):
    model = build(name)
    everything = {key for key, _ in model.named_parameters()} | {key for key, _ in model.named_buffers()}
    assert everything - set(model._ddp_params_and_buffers_to_ignore) == set(model.trained())


@each_method
def test_weight_decay_is_for_matrices_alone(build, train, name):
    model = build(name, weight_decay=0.1)
    optimizer = train(model).optimizers[0]
    for group in optimizer.param_groups:
        assert {value.ndim > 1 for value in group["params"]} == {group["weight_decay"] == 0.1}, group["name"]
    grouped = [id(value) for group in optimizer.param_groups for value in group["params"]]
    assert sorted(grouped) == sorted(id(value) for value in model.trained().values())


class Unread(PromptTuner):
    """Vectors that are declared, and not given to the backbone."""

    def __init__(self, **common):
        super().__init__(**common)
        self.prompt = SoftPrompt(2, 32)

    def prompts(self, batch):
        return None


class Blind(PromptTuner):
    """Weights of the backbone that are declared, under scores that do not depend on the backbone."""

    def backbone_parameters(self, backbone):
        return {name: value for name, value in backbone.named_parameters() if "layer.2" in name}

    def prompts(self, batch):
        return None

    def forward(self, batch):
        return self.head(self.backbone(batch).detach(), batch, self.backbone)


@pytest.mark.parametrize(
    ("method", "names"),
    [(Unread, r"prompt\.vectors gets"), (Blind, r"backbone\.model\.encoder\.layer\.2\.\S+ and 15 more gets")],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_declared_and_gets_no_gradient_stops_the_run_at_its_first_step(
    tiny, head, batch, fit, method, names, accumulate
):
    model = method(backbone=tiny("bert"), head=head("classify"))
    with pytest.raises(InputError, match=rf"^{names} no gradient: the loss does not depend on it; .*prompts returns"):
        fit(model, [batch(labels=LABELS)] * 4, accumulate_grad_batches=accumulate)


def test_tensors_of_the_backbone_that_depend_on_the_batch_may_lack_a_gradient(build, fit, batch):
    model = build("fine-tuning", "xlnet")
    assert fit(model, [batch(labels=LABELS)] * 2).global_step == 2, "without token types, which its segments need"
    assert {name for name, value in model.trained().items() if value.grad is None}


# ---- modes


class Modes(Callback):
    """Modes and dropout probabilities that a run has when its first batch comes."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.training = {module.training for module in pl_module.modules()}
        self.backbone = {module.p for module in pl_module.backbone.modules() if isinstance(module, nn.Dropout)}
        self.head = pl_module.head.dropout.p


@pytest.mark.parametrize(
    ("name", "asked", "probabilities"),
    [
        ("linear probe", {}, {0.0}),
        ("prefix", {}, {0.0}),
        ("fine-tuning", {}, {0.1}),
        ("soft prompt", {}, {0.0}),
        ("prefix", {"backbone_dropout": True}, {0.1}),
        ("fine-tuning", {"backbone_dropout": False}, {0.0}),
    ],
)
def test_a_run_trains_in_train_mode_and_dropout_is_off_by_probability(build, train, name, asked, probabilities):
    modes = Modes()
    train(build(name, **asked), callbacks=[modes], max_epochs=2)
    assert modes.training == {True}, "also after a validation"
    assert modes.backbone == probabilities
    assert modes.head == 0.1


@each_method
def test_checkpointing_trains_the_same_tensors(build, train, name):
    runs = []
    for checkpointing in (False, True):
        model = build(name, checkpointing=checkpointing, lr=0.01, backbone_dropout=True)
        train(model)
        runs.append(model.trained())
    # Adam steps by the sign of a gradient, however small; a key's bias has none but rounding.
    assert_close(*({k: v for k, v in run.items() if not k.endswith("key.bias")} for run in runs), atol=1e-4, rtol=1e-3)


# ---- what is counted and checked before a run


def test_a_model_without_its_weights_says_how_they_are_loaded(tiny, head, batch):
    with pytest.raises(InputError, match=r"backbone: is not loaded yet; call configure_model\(\)"):
        LinearProbe(backbone=tiny("bert"), head=head("classify"))(batch())


class OwnData(L.LightningDataModule):
    """A data module of the user's own, which knows nothing of ptune."""

    def __init__(self, inputs):
        super().__init__()
        self.batch = inputs

    def train_dataloader(self):
        return DataLoader([self.batch], batch_size=None)

    val_dataloader = test_dataloader = train_dataloader


class Data(OwnData):
    """The least a run asks of a data module of ptune."""

    chosen_on = chosen_how = "validation"
    said = ()

    def __init__(self, inputs, backbone, slots=0, max_length=7):
        super().__init__(inputs)
        self.backbone, self.slots, self.max_length, self.batch_size = backbone, slots, max_length, 3

    def recipe(self):
        return {}

    learned = recipe


@each_method
def test_the_printed_count_is_the_formulas(build, trainer, batch, capsys, name):
    model = build(name)
    total = TABLE[name].count + 32 * 3 + 3
    runner = trainer(
        max_epochs=1, num_sanity_val_steps=0, log_every_n_steps=1, callbacks=[Beginning(lambda trainer: "nowhere")]
    )
    runner.fit(model, Data(batch(labels=LABELS), model.spec.name, slots=model.slots))
    printed = capsys.readouterr().out
    share = re.escape(f"{100 * total / BERT:.3f} % of the backbone's {BERT:,}")
    assert re.search(rf"trained in all +{total:,}  {share}", printed)
    assert re.search(rf"trained head +{32 * 3 + 3:,}  head.linear.weight, head.linear.bias", printed)
    assert sum(value.numel() for value in model.trained().values()) == total


@pytest.mark.parametrize(
    ("arguments", "fits"), [({}, 48), ({"length": 10}, 48), ({"length": 10, "shift_positions": True}, 38)]
)
def test_text_and_shift_must_fit_into_the_positions_before_the_first_step(build, trainer, batch, arguments, fits):
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    model = build("prefix", **arguments)
    trainer(**options).fit(model, Data(batch(labels=LABELS), model.spec.name, max_length=fits))
    runner = trainer(**options)
    with pytest.raises(InputError, match=rf"max_length: {fits + 1} tokens.* the 48 positions .*max_length {fits} or"):
        runner.fit(model, Data(batch(labels=LABELS), model.spec.name, max_length=fits + 1))
    assert runner.global_step == 0


def test_a_data_module_of_another_backbone_is_refused_before_the_first_step(build, trainer, batch):
    runner, model = trainer(max_epochs=1, num_sanity_val_steps=0), build("prefix")
    with pytest.raises(InputError, match=rf"data.backbone: 'gpt2', but PTuningV2 reads '{model.spec.name}'; .* same"):
        runner.fit(model, Data(batch(labels=LABELS), "gpt2"))
    assert runner.global_step == 0


@pytest.mark.parametrize("name", ["prefix", "soft prompt"])
def test_a_data_module_of_the_users_own_trains_and_measures(build, trainer, batch, name):
    runner, model = trainer(max_epochs=1, num_sanity_val_steps=0, log_every_n_steps=1), build(name)
    runner.fit(model, OwnData(batch(labels=LABELS)))
    assert runner.global_step == 1
    assert "test/accuracy" in runner.test(model, OwnData(batch(labels=LABELS)), verbose=False)[0]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"head": None}, "head: missing"),
        ({"lr": 0.0}, "lr: 0.0 must be greater than 0"),
        ({"head_lr": -1.0}, "head_lr: -1.0 must be greater than 0"),
        ({"weight_decay": -0.1}, "weight_decay: -0.1 must be at least 0 and finite"),
        ({"warmup": -1.0}, "warmup: -1.0 must be at least 0 and finite"),
        ({"head_dropout": 1.0}, "head_dropout: 1.0 must be at least 0 and below 1"),
        ({"head_dropout": math.nan}, "head_dropout: nan must be at least 0 and below 1"),
        *(
            ({name: value}, f"{name}: {value} must {rule}")
            for name, rule in {
                "lr": "be greater than 0 and finite",
                "head_lr": "be greater than 0 and finite",
                "decay": "be greater than 0 and finite",
                "weight_decay": "be at least 0 and finite",
                "warmup": "be at least 0 and finite",
            }.items()
            for value in (math.nan, math.inf)
        ),
    ],
)
@pytest.mark.parametrize("method", [LinearProbe, FineTuning, PTuningV2])
def test_an_impossible_argument_is_an_input_error(tiny, head, method, arguments, reason):
    with pytest.raises(InputError, match=re.escape(reason)):
        method(**{"backbone": tiny("bert"), "head": head("classify")} | arguments)


# ---- Lightning's checkpoints


@pytest.fixture
def saved(build, train, tmp_path):
    """A trained model and its checkpoint: saved("prefix") -> model, path."""

    def run(name, **arguments):
        model = build(name, **arguments)
        train(model).save_checkpoint(tmp_path / "model.ckpt")
        return model, tmp_path / "model.ckpt"

    return run


@each_method
def test_a_checkpoint_holds_the_trained_tensors_with_their_units_alone_and_plain_values(saved, name):
    model, path = saved(name)
    checkpoint = torch.load(path, weights_only=True)
    assert set(checkpoint["state_dict"]) == set(model.trained()) | TABLE[name].units
    states = checkpoint["optimizer_states"][0]["state"]
    assert len(states) == len(model.trained())
    assert checkpoint["hyper_parameters"]["head"]["labels"] == ["no", "yes", "maybe"]


@each_method
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_checkpoint_loads_with_bit_equal_scores(saved, batch, name, family):
    model, path = saved(name, family=family)
    loaded = type(model).load_from_checkpoint(path, weights_only=True)
    assert torch.equal(scores(loaded, batch()), scores(model, batch()))
    assert loaded.head_spec == model.head_spec
    assert {key for key, value in loaded.named_parameters() if value.requires_grad} == set(model.trained())


@each_method
@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_checkpoint_that_does_not_hold_exactly_the_trained_tensors_is_refused(saved, name, change):
    model, path = saved(name)
    checkpoint = torch.load(path, weights_only=True)
    if change == "missing":
        del checkpoint["state_dict"]["head.linear.bias"]
    else:
        checkpoint["state_dict"]["head.extra"] = torch.zeros(1)
    torch.save(checkpoint, path)
    with pytest.raises(InputError, match="the checkpoint does not fit this model: tensors is"):
        type(model).load_from_checkpoint(path, weights_only=True)


@each_method
def test_a_checkpoint_of_other_backbone_weights_is_refused_with_both_fingerprints(saved, build, tiny, name):
    model, path = saved(name)
    other = tiny("bert", seed=1)
    here = build(name, backbone=other).backbone.fingerprint
    with pytest.raises(InputError, match=f"backbone is {model.backbone.fingerprint} there and {here} here"):
        type(model).load_from_checkpoint(path, weights_only=True, backbone=other)


def test_a_checkpoint_of_a_roberta_without_pooler_loads_again(saved, batch, tiny):
    model, path = saved("prefix", backbone=tiny("roberta", pooler=False))
    loaded = PTuningV2.load_from_checkpoint(path, weights_only=True)
    assert torch.equal(scores(loaded, batch()), scores(model, batch()))


# ---- prompts as files


@each_method
def test_saved_prompts_load_with_bit_equal_scores_and_stay_trainable(build, train, batch, tmp_path, name):
    model = build(name)
    train(model)
    model.save_prompts(tmp_path / "p.safetensors")
    other = build(name, seed=1)
    assert not torch.equal(scores(other, batch()), scores(model, batch()))
    model.fold()
    other.load_prompts(tmp_path / "p.safetensors")
    assert torch.equal(scores(other, batch()), scores(model, batch()))
    before = snapshot(other)
    other.train()
    train(other)
    assert all(not torch.equal(value, before[key]) for key, value in other.trained().items())
    assert all(torch.equal(value, before[key]) for key, value in snapshot(other).items() if key not in other.trained())


@each_method
def test_a_model_that_loaded_prompts_leaves_checkpoints_that_load(build, train, batch, tmp_path, name):
    model = build(name)
    model.save_prompts(tmp_path / "p.safetensors")
    model.load_prompts(tmp_path / "p.safetensors")
    train(model).save_checkpoint(tmp_path / "model.ckpt")
    loaded = type(model).load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert torch.equal(scores(loaded, batch()), scores(model, batch()))


def test_the_same_weights_in_another_folder_are_the_same_backbone(build, tiny, batch, tmp_path):
    folder = shutil.copytree(tiny("bert"), tmp_path / "elsewhere")
    model, other = build("prefix"), build("prefix", seed=1, backbone=str(folder))
    model.save_prompts(tmp_path / "p.safetensors")
    other.load_prompts(tmp_path / "p.safetensors")
    assert torch.equal(scores(other, batch()), scores(model, batch()))


@pytest.mark.parametrize(
    ("there", "here", "difference"),
    [
        ({}, {"name": "linear probe"}, "method is PTuningV2 there and LinearProbe here"),
        ({"name": "fine-tuning"}, {}, "method is FineTuning there and PTuningV2 here"),
        ({}, {"length": 5}, "length is 20 there and 5 here"),
        ({}, {"layers": "last:2"}, "layers is [0, 1, 2] there and [1, 2] here"),
        ({"shift_positions": True}, {}, "shift_positions is True there and False here"),
        ({}, {"pool": "mean"}, "pooling is pooler there and mean here"),
        ({"task": "tag"}, {"task": "regress"}, "task is toy/tag there and toy/regress here"),
        ({}, {"labels": ("a", "b", "c")}, r'labels is ["no", "yes", "maybe"] there and ["a", "b", "c"] here'),
        ({"init": "identity"}, {}, "tensors is "),
    ],
)
def test_prompts_of_another_model_are_refused_with_both_values(build, head, tmp_path, there, here, difference):
    build(**{"name": "prefix"} | there).save_prompts(tmp_path / "p.safetensors")
    if labels := here.pop("labels", None):
        here["head"] = replace(head("classify"), labels=labels)
    model = build(**{"name": "prefix"} | here)
    before = snapshot(model)
    with pytest.raises(InputError, match=re.escape(f"p.safetensors does not fit this model: {difference}")):
        model.load_prompts(tmp_path / "p.safetensors")
    assert_close(snapshot(model), before, atol=0, rtol=0)


def test_prompts_for_other_backbone_weights_are_refused_with_both_names(build, tiny, tmp_path):
    build("prefix").save_prompts(tmp_path / "p.safetensors")
    other = tiny("bert", seed=1)
    with pytest.raises(InputError, match=f"backbone is {tiny('bert')} there and {other} here"):
        build("prefix", backbone=other).load_prompts(tmp_path / "p.safetensors")


def test_prompts_for_weights_that_changed_in_place_are_refused_with_both_fingerprints(build, tmp_path):
    model = build("prefix")
    model.save_prompts(tmp_path / "p.safetensors")
    there, model.backbone.fingerprint = model.backbone.fingerprint, "0" * 16
    with pytest.raises(InputError, match=f"fingerprint is {there} there and {'0' * 16} here"):
        model.load_prompts(tmp_path / "p.safetensors")


def test_a_file_that_is_no_prompt_file_is_refused(build, tmp_path):
    model = build("prefix")
    save_file({"x": torch.zeros(1)}, tmp_path / "p.safetensors")
    with pytest.raises(InputError, match="does not fit this model: backbone is None there"):
        model.load_prompts(tmp_path / "p.safetensors")


@each_method
def test_a_prompt_file_holds_the_trained_tensors_alone_folded(build, tmp_path, name):
    model = build(name)
    model.save_prompts(tmp_path / "p.safetensors")
    tensors = load_file(tmp_path / "p.safetensors")
    folded = TABLE[name].folded
    own = HEAD | {folded} if folded else set(model.trained())
    assert set(tensors) == own


def test_a_file_that_holds_no_prompts_is_refused(build, tmp_path):
    for path in (tmp_path / "missing.safetensors", tmp_path / "text.safetensors"):
        with pytest.raises(InputError, match="not a file that save_prompts wrote"):
            build("prefix").load_prompts(path)
        (tmp_path / "text.safetensors").write_text("no tensors")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (torch.Tensor.half, "is float16, but trained tensors are saved as float32"),
        (torch.Tensor.long, "is int64, but"),
        (torch.Tensor.bool, "is bool, but"),
        (lambda value: value.index_fill(0, torch.tensor(1), torch.nan), "holds NaN or infinite values"),
        (lambda value: value / 0, "holds NaN or infinite values"),
    ],
)
def test_tensors_of_another_dtype_or_not_finite_are_refused_by_name(build, tmp_path, change, reason):
    model, path = build("prefix, mlp"), tmp_path / "p.safetensors"
    model.save_prompts(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    save_file(tensors | {"prompt.encoder.flat": change(tensors["prompt.encoder.flat"])}, path, metadata)
    before = snapshot(model)
    with pytest.raises(InputError, match=re.escape(f"p.safetensors: prompt.encoder.flat {reason}")):
        model.load_prompts(path)
    assert_close(snapshot(model), before, atol=0, rtol=0)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_prompt_file_has_the_permissions_of_the_users_umask(build, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        build("prefix").save_prompts(tmp_path / "p.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "p.safetensors").stat().st_mode) == mode


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_file_that_cannot_be_written_whole_is_not_written_at_all(build, tmp_path, monkeypatch, call):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "p.safetensors"
    path.write_text("before")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        build("prefix").save_prompts(path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {path.name: "before"}


def test_what_was_trained_in_16_bits_is_saved_in_fp32(build, tmp_path):
    model = build("prefix")
    model.prompt.bfloat16()
    model.save_prompts(tmp_path / "p.safetensors")
    other = build("prefix", seed=1)
    other.load_prompts(tmp_path / "p.safetensors")
    assert_close(other.prompt.encoder.flat, model.prompt.encoder.flat.float(), atol=0, rtol=0)


def test_layers_named_in_two_ways_are_the_same_layers(build, tmp_path):
    build("prefix", layers="last:2").save_prompts(tmp_path / "prompts.safetensors")
    build("prefix", layers=[1, 2]).load_prompts(tmp_path / "prompts.safetensors")
