"""Adapters that PEFT injects: what they are equal to, and what is refused."""

import sys

import pytest
import torch
from torch.testing import assert_close

from ptune.errors import InputError
from ptune.methods.bitfit import BitFit
from ptune.methods.lora import PEFT, LoRA


@pytest.fixture
def build(tiny, head):
    def make(method, family="bert", **arguments):
        torch.manual_seed(0)
        model = method(backbone=tiny(family), head=head("classify"), **arguments)
        model.configure_model()
        return model.eval()

    return make


def test_lora_adds_alpha_over_rank_times_b_a_to_each_target(build, batch):
    model, plain = build(LoRA, rank=2, alpha=6.0), build(BitFit)
    plain.head.load_state_dict(model.head.state_dict())
    with torch.no_grad():
        assert_close(model(batch()), plain(batch()), rtol=0, atol=0)  # B starts at zero
        for name, value in model.backbone_parameters(model.backbone).items():
            value.normal_()
            if name.endswith("lora_B.default.weight"):
                target = name.removesuffix(".lora_B.default.weight")
                a = model.backbone.get_parameter(f"{target}.lora_A.default.weight")
                plain.backbone.get_parameter(f"{target}.weight").add_(6.0 / 2 * value @ a)
        assert_close(model(batch()), plain(batch()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["roberta", "gpt2", "llama", "t5", "deberta"])
def test_the_layers_are_found_in_every_family_that_peft_knows(build, family):
    assert build(LoRA, family).backbone_parameters(build(LoRA, family).backbone)


def test_a_family_that_peft_does_not_know_needs_the_names_of_layers(build):
    with pytest.raises(InputError, match=r"targets.*its linear layers are .*q_lin.*v_lin"):
        build(LoRA, "distilbert")
    assert len(build(LoRA, "distilbert", targets=["q_lin", "v_lin"]).adapters) == 3 * 2 * 2
    assert len(build(LoRA, "distilbert", targets="all-linear").adapters) == 3 * 6 * 2


def test_dropout_is_before_a_and_in_training_alone(build, batch):
    model = build(LoRA, dropout=0.5, head_dropout=0.0)
    for value in model.backbone_parameters(model.backbone).values():
        value.data.normal_()
    with torch.no_grad():
        assert torch.equal(model(batch()), model(batch()))
        model.train()
        assert not torch.equal(model(batch()), model(batch()))


ADAPTERS = {
    "IA3Config": {},
    "LoHaConfig": {},
    "LoKrConfig": {},
    "OFTConfig": {},
    "BOFTConfig": {},
    "HRAConfig": {},
    "ShiraConfig": {"r": 2},
    "FourierFTConfig": {},
    "RandLoraConfig": {},
    "LNTuningConfig": {"target_modules": ["LayerNorm"]},
    "LoraConfig": {"use_dora": True},
}


@pytest.mark.filterwarnings("ignore")  # PEFT's, of sizes too small for it
@pytest.mark.parametrize("config", ADAPTERS)
def test_whatever_is_injected_is_saved_and_loaded_with_equal_scores(build, batch, tmp_path, config):
    model = build(PEFT, config=config, options=ADAPTERS[config])
    with torch.no_grad():
        before = model(batch())
        for value in model.backbone_parameters(model.backbone).values():
            value.add_(torch.randn_like(value), alpha=0.1)
        assert not torch.equal(model(batch()), before)
        model.save_prompts(tmp_path / "adapter.safetensors")
        other = build(PEFT, config=config, options=ADAPTERS[config])
        other.load_prompts(tmp_path / "adapter.safetensors")
        assert torch.equal(other(batch()), model(batch()))


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("PrefixTuningConfig", {}, "config: PrefixTuningConfig is a prompt.*use --model PTuningV2"),
        ("PromptTuningConfig", {}, "use --model PromptTuning"),
        ("PromptEncoderConfig", {}, "use --model PTuning"),
        ("CPTConfig", {}, "use --model PTuningV2, PTuning or PromptTuning"),
        ("AdaLoraConfig", {}, "config: AdaLoraConfig needs a call after each step"),
        ("LoraConfg", {}, "config: PEFT has no 'LoraConfg'; did you mean 'LoraConfig'"),
        ("LoraConfig", {"rank": 2}, "options: LoraConfig has no 'rank'"),
        ("LoraConfig", {"use_dora": True, "init_lora_weights": "nonsense"}, "LoraConfig cannot be injected"),
        ("LoraConfig", {"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4' changes the backbone by .*use 'pissa'"),
        ("LoraConfig", {"r": "eight"}, "LoraConfig cannot be injected .*'str' and 'int'"),
        ("LoraConfig", {"target_modules": "["}, "LoraConfig cannot be injected .*unterminated"),
        ("VeraConfig", {}, "VeraConfig cannot be injected .*shared state"),
        ("LoHaConfig", {"target_modules": ["nothing"]}, "'nothing'.*its linear layers are dense, key, query, value"),
    ],
)
def test_what_cannot_be_injected_is_refused_with_the_reason(build, config, options, message):
    with pytest.raises(InputError, match=message):
        build(PEFT, config=config, options=options)


def test_without_peft_the_extra_is_named(tiny, head, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"package 'peft' is not installed; pip install .ptune\[peft\]"):
        LoRA(backbone=tiny("bert"), head=head("classify"))
