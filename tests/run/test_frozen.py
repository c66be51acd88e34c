"""What the layers below all that is trained compute is kept, and changes nothing."""

import json

import pytest
import runs
import torch

from ptune.backbone import Backbone

LAST = {"model__layers": "last:1", "model__length": 4}
CASES = {
    "probe": ("LinearProbe", "toy/single", {}),
    "probe of words": ("LinearProbe", "toy/tagging", {}),
    "probe of choices": ("LinearProbe", "toy/choice", {}),
    "prefix": ("PTuningV2", "toy/pair", LAST),
    "shifted prefix": (
        "PTuningV2",
        "toy/qa",
        LAST | {"model__shift_positions": True},
    ),
    "checkpointing": (
        "PTuningV2",
        "toy/pair",
        LAST | {"model__checkpointing": True},
    ),
}


def numbers(run_dir) -> list[dict]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "loss" in k or "accuracy" in k} for line in lines]


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_the_same_with_and_without(case, tmp_path, monkeypatch):
    method, task, options = CASES[case]
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    seen = []
    forward = Backbone.forward

    def spied(self, batch, prompts=None, begin=None, read=None):
        seen.append(begin is not None)
        return forward(self, batch, prompts, begin, read)

    monkeypatch.setattr(Backbone, "forward", spied)
    plain = runs.fit(tmp_path / "plain", method, task, **options)
    assert not any(seen)
    kept = runs.fit(tmp_path / "kept", method, task, cache_frozen=True, **options)
    tried = method != "LinearProbe"  # whether its layers can begin there; a probe's do not run at all
    assert sum(seen) == tried + 2 * 3 + 3 * 2, "3 training batches in 2 epochs, 2 of validation in each and at the end"
    assert kept["metrics"]["test"] == pytest.approx(plain["metrics"]["test"], abs=1e-5)
    for ours, theirs in zip(numbers(tmp_path / "kept"), numbers(tmp_path / "plain"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_second_run_reads_what_the_first_has_kept_whatever_its_seed_and_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    runs.fit(tmp_path / "one", "LinearProbe", "toy/single", cache_frozen=True)
    before = sorted(path.name for path in (tmp_path / "cache").glob("states-*"))
    assert len(before) == 2
    monkeypatch.setattr(Backbone, "below", None)  # cannot be called
    runs.fit(tmp_path / "two", "LinearProbe", "toy/single", cache_frozen=True, seed_everything=3, model__lr=0.1)
    assert sorted(path.name for path in (tmp_path / "cache").glob("states-*")) == before


def test_a_run_goes_on_bit_equal_from_its_last_checkpoint(tmp_path):
    options = LAST | {"cache_frozen": True, "every_n_steps": 2, "model__schedule": "constant"}
    whole = runs.fit(tmp_path / "whole", **options)
    code, _, err = runs.call([*runs.line(tmp_path / "stopped", **options), "--trainer.max_steps", 4])
    assert code == 0, err
    (tmp_path / "stopped" / "result.json").unlink()
    words = [*runs.line(tmp_path / "stopped", **options), "--ckpt_path", "auto"]
    code, _, err = runs.call(words)
    assert code == 0, err
    again = json.loads((tmp_path / "stopped" / "result.json").read_text())
    assert again["metrics"] == whole["metrics"]


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("PTuningV2", {}, "PTuningV2 trains what the lowest layer computes"),
        ("FineTuning", {}, "FineTuning trains what the lowest layer computes"),
        ("PTuningV2", LAST | {"model__also": "[bias]"}, "PTuningV2 trains what the lowest layer computes"),
        ("LinearProbe", {"cache_limit": 1e-9}, "exceed --cache_limit 1e-09"),
        ("LinearProbe", {"model__backbone_dropout": True}, "or that layer drops out"),
    ],
)
def test_where_nothing_can_be_kept_true_is_an_error_and_auto_is_not(method, options, reason, tmp_path):
    code, _, err = runs.call(runs.line(tmp_path / "x", method, "toy/single", cache_frozen=True, **options))
    assert code == 2
    assert reason in err
    assert not (tmp_path / "x" / "config.yaml").exists()
    runs.fit(tmp_path / "y", method, "toy/single", cache_frozen="auto", trainer__max_epochs=1, **options)


FAMILIES = ("bert", "roberta", "electra", "distilbert", "gpt2", "llama", "modernbert", "opt", "xlnet", "albert", "t5")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_begins_at_a_layer_or_says_why_not(tiny, batch, family):
    backbone = Backbone(tiny(family)).eval()
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, 5:] = 0
    inputs = batch(attention_mask=mask)
    with torch.no_grad():
        whole = backbone(inputs)
        for n in range(1, backbone.spec.layers + 1):
            if gap := backbone.cut_gap(n):
                assert family in ("xlnet", "albert", "t5"), gap
                continue
            states = backbone.below(inputs, n) * mask[..., None]
            torch.testing.assert_close(backbone(inputs, None, (n, states))[mask.bool()], whole[mask.bool()])
        assert torch.equal(backbone(inputs), whole), "the layers are whole again"
