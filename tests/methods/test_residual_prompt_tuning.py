"""Residual prompt tuning: P' = P + Phi(P), which is folded into P' for use."""

import math

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification

from ptune.errors import InputError
from ptune.export import write_adapter
from ptune.methods.residual_prompt_tuning import ResidualPromptTuning

P, E, BOTTLENECK = 2, 32, 6


@pytest.fixture
def build(tiny, head):
    """A model whose tensors are random: build("gpt2", layer_norm=False)."""

    def make(family="bert", **arguments):
        options = {"backbone": tiny(family), "head": head("classify"), "length": P, "bottleneck": BOTTLENECK}
        model = ResidualPromptTuning(**options | arguments)
        model.configure_model()
        for value in model.prompt.parameters():
            value.data.normal_()
        return model.eval()

    return make


@torch.no_grad()
@pytest.mark.parametrize("layer_norm", [True, False])
def test_the_vectors_are_the_papers_equation_in_loops(build, layer_norm):
    prompt = build(layer_norm=layer_norm).prompt
    down, up = prompt.network[0], prompt.network[2]
    for vector, found in zip(prompt.vectors, prompt()[0], strict=True):
        inner = [max(0.0, float((down.weight[j] * vector).sum() + down.bias[j])) for j in range(BOTTLENECK)]
        outer = [
            sum(float(up.weight[i, j]) * inner[j] for j in range(BOTTLENECK)) + float(up.bias[i]) for i in range(E)
        ]
        if layer_norm:
            gain, shift = prompt.network[3].weight, prompt.network[3].bias
            mean = sum(outer) / E
            size = math.sqrt(sum((x - mean) ** 2 for x in outer) / E + 1e-5)
            outer = [(x - mean) / size * float(gain[i]) + float(shift[i]) for i, x in enumerate(outer)]
        assert_close(found, vector + torch.tensor(outer), atol=1e-5, rtol=1e-5)


def test_one_network_reads_all_vectors(build):
    prompt = build().prompt
    prompt.vectors.data[1] = prompt.vectors.data[0]
    assert_close(*prompt()[0])


def test_the_vectors_start_from_words(tiny, head):
    model = ResidualPromptTuning(backbone=tiny("bert"), head=head("classify"), length=P)
    model.configure_model()
    words = model.backbone.model.get_input_embeddings().weight
    assert all((words == vector).all(1).any() for vector in model.prompt.vectors)


def test_a_file_for_use_holds_the_vectors_that_the_backbone_reads(build, tmp_path):
    model = build()
    model.save_prompts(tmp_path / "p.safetensors")
    assert torch.equal(load_file(tmp_path / "p.safetensors")["prompt.vectors"], model.prompt()[0])


def test_peft_reads_the_folded_vectors_as_its_prompt_tuning(build, batch, tmp_path):
    model, inputs = build("gpt2", head_bias=False), batch((7, 7, 7))
    write_adapter(model, tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(model.hparams["backbone"], num_labels=3)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    slots = torch.ones(3, P, dtype=torch.long)
    ids, mask = (torch.cat([slots, inputs[name]], dim=1) for name in ("input_ids", "attention_mask"))
    own = {"input_ids": ids, "attention_mask": mask, "slots": (torch.arange(7 + P) < P).expand(3, -1)}
    with torch.no_grad():
        assert_close(theirs(**inputs).logits, model(own), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"length": 0}, "length: 0 must be at least 1"), ({"bottleneck": 0}, "bottleneck: 0 must be at least 1")],
)
def test_bad_arguments_are_refused(build, arguments, message):
    with pytest.raises(InputError, match=message):
        build(**arguments)
