"""`python -m ptune.backbones`: cells are measured, reasons are sentences."""

import pytest
import torch

from ptune import backbones as support
from ptune.backbone import Backbone
from ptune.methods.p_tuning_v2 import PTuningV2

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def test_the_page_has_a_line_a_capability_with_the_families_that_differ_and_the_reasons_below(monkeypatch, capsys):
    monkeypatch.setattr(support, "FAMILIES", ("bert", "electra", "bloom"))
    support.main([])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 families: bert, electra, bloom."
    assert [line.partition("**: ")[0] for line in lines[2:11]] == [f"- **{name}" for name in support.CAPABILITIES]
    assert "- **prefix**: yes; no for bloom" in lines
    assert "- **soft prompt**: yes" in lines
    assert "- **LM head**: masked; causal for bloom" in lines
    assert "- **padding**: right, left" in lines
    assert "- **attention**: eager, sdpa, flex, flash*; its own for bloom" in lines
    assert any(line.startswith("- bloom: prefix: it cannot be prompted in its layers: ") for line in lines)
    assert any(line.startswith("- bloom: shift_positions: it takes no positions from outside") for line in lines)


def test_a_folder_is_described_in_sentences(tiny, capsys):
    support.main([tiny("xlnet"), tiny("ctrl")])
    out = capsys.readouterr().out
    assert out.count("  prefix: yes\n") == 2
    assert "takes no positions from outside, so its text cannot be shifted" in out
    assert "checkpointing: checkpointing: backbone" in out


def test_a_name_that_is_nowhere_is_a_sentence(capsys):
    support.main(["./nowhere"])
    assert "  prefix: backbone './nowhere': there is no config.json in nowhere" in capsys.readouterr().out


def test_a_method_whose_gradient_is_cut_off_does_not_pass(tiny, monkeypatch):
    forward = Backbone.forward
    assert support.tuned(PTuningV2, tiny("bert"), length=2) == "yes"
    monkeypatch.setattr(Backbone, "forward", lambda self, *args: forward(self, *args).detach())
    assert support.tuned(PTuningV2, tiny("bert"), length=2) == "no"


@pytest.mark.parametrize("kind", support.HEADS)
def test_a_batch_padded_on_the_left_holds_the_same_texts(kind):
    right, left = support.batch_for(kind), support.batch_for(kind, left=True)
    assert left["attention_mask"][3].tolist() == [0] * 3 + [1] * 6
    for one, other in zip(right["input_ids"], left["input_ids"], strict=True):
        assert torch.equal(one[one != 1], other[other != 1])


@pytest.mark.parametrize("family", support.FAMILIES)
def test_every_family_of_the_page_is_built_and_runs(tmp_path, family):
    backbone = Backbone(support.tiny(family, str(tmp_path)))
    batch = support.batch_for()
    with torch.no_grad():
        states = backbone(batch)
    assert backbone.spec.config.model_type == family
    assert states.shape == (4, 9, backbone.spec.width)
    assert states.isfinite().all()
    assert (states[0, 0] - states[0, 1]).norm() > 1e-3, "tokens differ"
