"""Every method that trains something trains it through a template's words, by the command line and by hand."""

import pytest
import runs
import torch
from methods_table import TABLE, names
from torch.testing import assert_close

from ptune.data.classification import Classification
from ptune.errors import InputError
from ptune.methods.fine_tuning import FineTuning
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.p_tuning import PTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.tasks import toy

TEMPLATE = "{sentence1} [P:2] who? {sentence2} [P] [MASK]."
PLAIN = TEMPLATE.replace(" [P:2]", "").replace(" [P]", "")
WORDS = {"no": "judge", "yes": ["baker", "the pilot"]}
P = 3
CASES = {TABLE[name].method: TABLE[name] for name in names(variants=False) if TABLE[name].method is not LinearProbe}
each_method = pytest.mark.parametrize("method", CASES)


def asked(method, template="", words=None, backbone="") -> Classification:
    """Toy pairs in a template, with the method's slots."""
    return Classification(
        "toy/pair",
        backbone or runs.bert(lm=True),
        path=runs.data(),
        batch_size=4,
        max_length=48,
        slots=P if method.slot_argument else 0,
        template=template or (TEMPLATE if method.slot_argument else PLAIN),
        verbalizer=words or WORDS,
    )


def built(method, data, seed=0, **arguments):
    """A model for the data, its weights loaded."""
    torch.manual_seed(seed)
    model = method(backbone=data.backbone, head=data.head, **CASES[method].given(P, certain=True) | arguments)
    model.configure_model()
    return model


def loss_of(model, batch):
    """Mean training loss."""
    total, count = model.head.loss(model(batch), batch)
    return total / count


@each_method
def test_a_run_trains_on_the_words_of_a_template(method, tmp_path):
    options = {"length": P} if method.slot_argument else {}
    result = runs.fit(
        tmp_path / "run",
        method.__name__,
        model__backbone=runs.bert(lm=True),
        data__template=TEMPLATE if options else PLAIN,
        data__verbalizer="{no: judge, yes: [baker, the pilot]}",
        **{f"model__{name}": value for name, value in options.items()},
        trainer__max_epochs=1,
    )
    assert result["steps"] == 3
    assert set(result["metrics"]["validation"]) == {"accuracy", "loss"}
    train, validation = (
        [row["label"] for row in toy.generate("toy/pair", split)[:n]] for split, n in (("train", 10), ("validation", 7))
    )
    most = max(set(train), key=train.count)
    assert result["majority"]["validation"] == {"accuracy": pytest.approx(validation.count(most) / 7)}


@each_method
@pytest.mark.parametrize("backbone", [lambda: runs.bert(lm=True), runs.gpt2], ids=["masked", "causal"])
def test_steps_lower_the_loss_and_move_what_the_method_trains_and_nothing_else(method, backbone):
    data = asked(method, backbone=backbone())
    data.setup("fit")
    model = built(method, data)
    batch = next(iter(data.train_dataloader()))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.trained().values(), lr=0.01)
    losses = []
    for _ in range(4):
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved <= set(model.trained())
    assert not any(name.startswith("head.") for name in model.trained()), "the words are the head"
    if method is FineTuning:
        assert any(name.startswith("backbone.lm.") for name in moved) == ("bert" in data.backbone), "GPT-2's is tied"
    else:
        assert moved == set(model.trained())
        assert all(name.startswith("prompt." if CASES[method].frozen else "backbone.") for name in moved)


@each_method
def test_saved_prompts_give_equal_scores_when_loaded(method, tmp_path):
    data = asked(method)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    model = built(method, data)
    optimizer = torch.optim.SGD(model.trained().values(), lr=0.1)
    loss_of(model, batch).backward()
    optimizer.step()
    model.save_prompts(tmp_path / "prompts.safetensors")
    other = built(method, data, seed=1)
    with torch.no_grad():
        expected = model.eval()(batch)
        if method is FineTuning:
            assert not torch.equal(other.eval()(batch), expected)
        else:
            assert (other.eval()(batch) - expected).abs().max() > 1e-4
        other.load_prompts(tmp_path / "prompts.safetensors")
        assert_close(other(batch), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_a_folded_encoder_scores_as_the_unfolded_one(encoder):
    data = asked(PTuning)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    model = built(PTuning, data, encoder=encoder).eval()
    with torch.no_grad():
        before = model(batch)
        model.fold()
        assert set(model.trained()) == {"prompt.vectors"}
        assert_close(model(batch), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"words": {"no": "baker", "yes": ["judge", "the pilot"]}}, "words is .*judge.* there and .*baker.* here"),
        ({"words": {"no": "judge", "yes": "baker"}}, "words is"),
        ({"template": TEMPLATE.replace("who?", "by")}, r"template is .*who\?.* there and .*by.* here"),
    ],
)
def test_prompts_made_for_other_words_or_another_template_are_refused(tmp_path, other, reason):
    model = built(PTuning, asked(PTuning))
    model.save_prompts(tmp_path / "prompts.safetensors")
    with pytest.raises(InputError, match=rf"prompts.safetensors does not fit this model: {reason}"):
        built(PTuning, asked(PTuning, **other)).load_prompts(tmp_path / "prompts.safetensors")


def test_prompts_made_for_a_task_head_are_refused_by_a_template_and_the_other_way_round(tmp_path):
    def plain():
        model = PTuningV2(backbone=runs.bert(lm=True), head=Classification("toy/pair", runs.bert()).head, length=P)
        model.configure_model()
        return model

    made = {"classify": plain, "cloze": lambda: built(PTuningV2, asked(PTuningV2, PLAIN))}
    for kind, other in (("classify", "cloze"), ("cloze", "classify")):
        made[kind]().save_prompts(tmp_path / kind)
        with pytest.raises(InputError, match=f"does not fit this model: head is {kind} there and {other} here"):
            made[other]().load_prompts(tmp_path / kind)


def test_a_linear_probe_of_a_template_would_train_nothing_and_is_refused():
    data = asked(LinearProbe)
    with pytest.raises(InputError, match=r"LinearProbe would train nothing.*ManualPrompt, or leave --data"):
        LinearProbe(backbone=data.backbone, head=data.head)


def test_data_without_the_methods_slots_are_refused_before_the_first_step(trainer):
    data = asked(FineTuning, PLAIN)
    with pytest.raises(InputError, match=r"data.slots: 0, but PTuning fills 3"):
        trainer(max_steps=1).fit(built(PTuning, data), data)


@pytest.mark.parametrize("method", [PTuning, FineTuning])
def test_a_checkpoint_brings_the_head_of_a_template_along(method, trainer, tmp_path):
    data = asked(method)
    model = built(method, data, lr=0.01)
    runner = trainer(max_steps=1, num_sanity_val_steps=0)
    runner.fit(model, data)
    runner.save_checkpoint(tmp_path / "x.ckpt")
    other = method.load_from_checkpoint(tmp_path / "x.ckpt")
    assert other.head_spec == data.head
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        assert not torch.allclose(built(method, data).eval()(batch), model.eval()(batch))
        assert_close(other.eval()(batch), model.eval()(batch))
