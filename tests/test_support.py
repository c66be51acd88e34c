"""`python -m ptune.backbones`: cells are measured, reasons are sentences."""

import pytest
import torch

from ptune import backbones as support
from ptune.backbone import Backbone
from ptune.methods.p_tuning_v2 import PTuningV2

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def test_the_table_has_a_line_a_family_and_the_reasons_below(monkeypatch, capsys):
    monkeypatch.setattr(support, "FAMILIES", {"bert": support.POSITIONS, "bloom": support.POSITIONS})
    support.main([])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"| family | {' | '.join(support.COLUMNS)} |"
    cells = {}
    for line in lines[2:4]:
        family, *found = line[2:-2].split(" | ")
        cells[family] = dict(zip(support.COLUMNS, found, strict=True))
    assert cells["bert"]["prefix"] == cells["bert"]["checkpointing"] == "yes"
    assert cells["bert"]["padding"] == "right, left"
    assert cells["bert"]["attention"].startswith("eager, sdpa, flex")
    assert cells["bloom"]["prefix"] == "no"
    assert cells["bloom"]["soft prompt"] == "yes"
    assert any(line.startswith("- bloom, prefix: backbone 'bloom' (model type 'bloom') cannot be") for line in lines)


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


def test_every_family_of_the_table_can_be_built(tmp_path):
    for family in support.FAMILIES:
        assert support.tiny(family, str(tmp_path / family))
