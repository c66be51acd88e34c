"""Prompt transfer: what a run that starts from a trained prompt has before its first step, and what it is called."""

import json
import shutil

import pytest
import runs
import torch
from torch.testing import assert_close

from ptune.data.classification import Classification
from ptune.errors import InputError
from ptune.evaluate import main as evaluate
from ptune.methods.p_tuning import PTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning
from ptune.run.arguments import prepare
from ptune.run.cli import CLI
from ptune.run.configs import read
from ptune.tuning.transfer import digest, pinned, placeless

P = 3
PLAIN = {"length": P, "prefix_dropout": 0.0}
SOURCES = {
    "table": (PTuningV2, PLAIN, PTuningV2, PLAIN),
    "mlp": (PTuningV2, PLAIN | {"mlp": 4}, PTuningV2, PLAIN),
    "hidden": (PTuningV2, PLAIN | {"form": "hidden", "scaled": True}, PTuningV2, PLAIN | {"scaled": True}),
    "gate": (PTuningV2, PLAIN | {"init": "identity"}, PTuningV2, PLAIN | {"gate": True, "scaled": True}),
    "layers": (PTuningV2, PLAIN | {"layers": "last:1", "scaled": True}, PTuningV2, PLAIN | {"layers": [2]}),
    "companions": (PTuningV2, PLAIN | {"also": ["layer_norm"]}, PTuningV2, PLAIN | {"also": ["layer_norm"]}),
    "vectors": (PromptTuning, {"length": P}, PromptTuning, {"length": P}),
    "encoder": (PTuning, {"length": P}, PTuning, {"length": P}),
    "encoder to vectors": (PTuning, {"length": P, "encoder": "mlp"}, PromptTuning, {"length": P}),
    "vectors to encoder": (PromptTuning, {"length": P}, PTuning, {"length": P}),
}


@pytest.fixture
def build(tiny, head):
    """A model with its weights loaded: build(PTuningV2, length=3)."""

    def make(method=PTuningV2, family="bert", task="classify", seed=0, **arguments):
        torch.manual_seed(seed)
        model = method(**{"backbone": tiny(family), "head": head(task)} | arguments)
        model.configure_model()
        return model

    return make


@pytest.fixture
def trained(build, tmp_path):
    """Saves a prompt all of whose tensors were moved, and gives the model: trained(PTuningV2, length=3)."""

    def make(*arguments, **options):
        model = build(*arguments, seed=1, **options)
        with torch.no_grad():
            for value in model.trained().values():
                value.add_(torch.randn_like(value) * 0.3)
        model.save_prompts(tmp_path / "prompts.safetensors")
        return model.eval()

    return make


def texts(batch):
    """A batch with slots for soft prompts behind the first token of each text."""
    inputs = batch(lengths=(9, 8, 6))
    slots = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    slots[:, 1 : 1 + P] = True
    return inputs | {"slots": slots}


@pytest.mark.parametrize("case", SOURCES)
def test_it_starts_with_the_folded_prompt_of_the_run_and_with_its_head_where_asked(
    build, trained, batch, tmp_path, case
):
    method, options, other, others = SOURCES[case]
    source, inputs = trained(method, **options), texts(batch)
    with torch.no_grad():
        wanted = source(inputs)
        started = build(other, **others, init=f"run+head:{tmp_path}").eval()
        started.start()
        assert_close(started(inputs), wanted, atol=2e-6, rtol=1e-5)
        anew = build(other, **others, init=f"run:{tmp_path}").eval()
        own = anew.head.linear.weight.clone()
        anew.start()
        assert torch.equal(anew.head.linear.weight, own)
        anew.head.load_state_dict(source.head.state_dict())
        assert_close(anew(inputs), wanted, atol=2e-6, rtol=1e-5)
    assert all(value.requires_grad for value in anew.trained().values())


def test_a_prefix_is_taken_by_a_model_on_another_device(build, trained):
    """A fit moves the model to its device before it starts; the file is read on the CPU."""
    source, target = trained(**PLAIN), build(**PLAIN)
    target.prompt.to("meta")  # every machine has it
    target.take({name: value.detach() for name, value in source.tensors().items()})


@pytest.mark.parametrize(
    ("source", "target", "part"),
    [
        ({"length": 4}, {}, "does not fit this model: length is 4 there and 3 here"),
        ({"layers": "last:1"}, {}, r"layers is \[2\] there and \[0, 1, 2\] here"),
        ({"seed": 5}, {}, "whose weights are not those of"),
        ({"shift_positions": True}, {}, "shift_positions is True there and False here"),
        ({"gate": True}, {}, "prompt.encoder.flat and 1 more, and this PTuningV2 trains prompt.encoder.flat; choose"),
        ({}, {"also": ["bias"]}, "with the same gate and also"),
        ({"method": PromptTuning}, {}, "a prompt of PromptTuning with prompt.vectors"),
        ({"task": "regress"}, {"init": "run+head"}, "head is regress there and classify here"),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused_with_what_differs(build, trained, tiny, tmp_path, source, target, part):
    options = {"length": P} | source
    if "seed" in options:
        options["backbone"] = tiny("bert", seed=options.pop("seed"))
    trained(**options)
    options = PLAIN | target
    model = build(**options | {"init": f"{options.get('init', 'run')}:{tmp_path}"})
    before = {name: value.clone() for name, value in model.trained().items()}
    with pytest.raises(InputError, match=part):
        model.start()
    assert all(torch.equal(value, before[name]) for name, value in model.trained().items())


@pytest.mark.parametrize(
    ("method", "arguments", "part"),
    [
        (PTuningV2, {"mlp": 4}, "mlp: 4 cannot start from init: 'run:x'"),
        (PTuningV2, {"form": "hidden"}, "form: 'hidden' cannot start from init: 'run:x'"),
        (PTuningV2, {"init_std": 0.1}, "init_std: 0.1 is for a start that is drawn"),
        (PTuning, {"encoder": "mlp"}, "trains vectors without an encoder"),
        (PTuning, {"init": "vocab"}, "init: 'vocab' is no start"),
        (PromptTuning, {"init": "ranbom"}, "did you mean 'random'"),
        (PromptTuning, {"init": "run:"}, "names no directory"),
    ],
)
def test_arguments_that_a_trained_start_leaves_no_room_for_are_refused(tiny, head, method, arguments, part):
    with pytest.raises(InputError, match=part):
        method(**{"backbone": tiny("bert"), "head": head("classify"), "init": "run:x"} | arguments)


def test_a_prompt_is_named_by_its_tensors_and_not_by_its_place(trained, tmp_path):
    trained(length=P)
    named = pinned(f"run:{tmp_path}")
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "prompts.safetensors", copy)
    assert pinned(named) == named
    assert placeless(named) == placeless(pinned(f"run:{copy}/prompts.safetensors")) == f"run:#{named[-16:]}"
    assert placeless("normal") == pinned("normal") == "normal"
    assert placeless(None) is pinned(None) is None
    one = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [{"a": torch.zeros(3, 2), "b": torch.ones(1)}, {"a": torch.zeros(2, 3), "c": torch.ones(1)}]
    others += [{"a": torch.zeros(2, 3), "b": torch.zeros(1)}]
    assert digest(one) == digest(dict(reversed(one.items())))
    assert len({digest(each) for each in (one, *others)}) == 4


def test_a_prompt_that_was_trained_again_is_not_taken_for_the_one_that_is_named(build, trained, tmp_path):
    trained(length=P)
    named = pinned(f"run:{tmp_path}")
    trained(length=P, init="identity")
    with pytest.raises(InputError, match="holds another prompt than"):
        build(length=P, init=named).start()


def named_in(run_dir) -> str:
    return read(str(run_dir / "config.yaml"))["model"]["init_args"]["init"]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """The folder of a run and of the one that started from it, and the result of the latter."""
    folder = tmp_path_factory.mktemp("transfer")
    own = {"model__length": P, "model__schedule": "constant", "trainer__max_epochs": 1}
    runs.fit(folder / "source", name="toy/single", **own)
    return folder, runs.fit(folder / "target", **own, model__init=f"run:{folder}/source")


@pytest.mark.slow
def test_a_run_names_what_it_started_from_and_is_another_one_for_it(target, tmp_path):
    folder, found = target
    assert found["config"]["init"] == named_in(folder / "target") == pinned(f"run:{folder}/source")
    shutil.copytree(folder / "source", tmp_path / "copy")

    def hash_of(init: str) -> str:
        own = ["--config", str(folder / "target/config.yaml"), "--model.init", init]
        return CLI.of(prepare(own)).identity.hash

    assert hash_of(f"run:{tmp_path}/copy") == found["hash"]
    assert found["hash"] not in (hash_of("normal"), hash_of(f"run+head:{tmp_path}/copy"))


@pytest.mark.slow
def test_a_run_that_is_trained_needs_its_source_no_more(target, tmp_path):
    folder, found = target
    shutil.copytree(folder / "target", tmp_path / "target")
    config = (tmp_path / "target/config.yaml").read_text()
    (tmp_path / "target/config.yaml").write_text(config.replace(f"run:{folder}/source", "run:gone"))
    assert named_in(tmp_path / "target").startswith("run:gone#")
    code, _, err = runs.call([tmp_path / "target", "--trainer.accelerator", "cpu"], evaluate)
    assert code == 0, err
    measured = json.loads((tmp_path / "target/evaluation.json").read_text())
    assert (measured["metrics"], measured["hash"]) == (found["metrics"], found["hash"])


@pytest.mark.slow
@pytest.mark.deep
def test_a_run_goes_on_without_its_source(target, tmp_path):
    folder, _ = target
    shutil.copytree(folder / "target", tmp_path / "target")
    (tmp_path / "target/result.json").unlink()
    (folder / "source").rename(folder / "away")
    try:
        more = ["--trainer.max_epochs", "2", "--ckpt_path", "auto"]
        code, _, err = runs.call(["--config", tmp_path / "target/config.yaml", "--run_dir", tmp_path / "target", *more])
    finally:
        (folder / "away").rename(folder / "source")
    assert code == 0, err


def test_the_data_of_the_target_need_not_be_those_of_the_source(tmp_path):
    data = Classification("toy/pair", backbone=runs.bert(), path=runs.data())
    source = PTuningV2(backbone=runs.bert(), head=data.head, length=P)
    source.save_prompts(tmp_path / "prompts.safetensors")
    other = Classification("toy/single", backbone=runs.bert(), path=runs.data("toy/single"))
    target = PTuningV2(backbone=runs.bert(), head=other.head, length=P, init=f"run:{tmp_path}")
    target.configure_model()
    target.start()
    assert torch.equal(target.prompt.encoder.flat, source.prompt.encoder.flat)
