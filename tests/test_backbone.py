"""The backbone alone: what it loads, refuses, reads, pools and leaves alone."""

import json
import shutil
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from families import automodel, text
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import AutoModel, BertConfig, BertForPreTraining, T5EncoderModel
from transformers.models.bert.modeling_bert import BertEncoder

from ptune.backbone import Backbone, traits
from ptune.backbone.pretrained import describe
from ptune.backbone.tokenizer import load as load_tokenizer
from ptune.errors import InputError
from ptune.prompts import Prompts

P = 4
PART = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TABLES = {"bert": 48, "electra": 48, "distilbert": 48, "gpt2": 48, "opt": 48, "roberta": 46}  # tokens with a position

# ---- without prompts


@pytest.mark.parametrize("prompts", [None, Prompts()], ids=["None", "Prompts()"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_family_that_reads_no_prefix_is_automodel_bit_for_bit(tiny, batch, prompts, attention):
    with torch.no_grad():
        ours = Backbone(tiny("bloom"), attention=attention)(batch(), prompts)
        assert torch.equal(ours, automodel(tiny("bloom"), "bloom")(**batch()).last_hidden_state)


@pytest.mark.parametrize("family", ["bert", "electra", "albert", "xlnet"])
def test_token_types_reach_the_model(tiny, batch, family):
    types = torch.arange(7).expand(3, -1) // 4
    backbone = Backbone(tiny(family))
    model = AutoModel.from_pretrained(tiny(family)).eval()
    with torch.no_grad():
        typed = backbone(batch(token_type_ids=types))
        assert torch.equal(typed, model(**batch(token_type_ids=types)).last_hidden_state)
        assert not torch.equal(typed, backbone(batch()))


def test_models_of_one_checkpoint_do_not_disturb_each_other(tiny, batch, prefix, sdpa_keys):
    first = Backbone(tiny("bert"), attention="sdpa")
    prompts = Prompts(prefix=prefix(first.spec, P))
    with torch.no_grad():
        before = first(batch(), prompts)
        Backbone(tiny("bert"), attention="eager", dropout=True, pool="first")(batch(), prompts)
        plain = AutoModel.from_pretrained(tiny("bert")).eval()
        sdpa_keys.clear()
        assert torch.equal(first(batch(), prompts), before)
        plain(**batch())
    assert sdpa_keys == [7 + P] * 3 + [7] * 3
    assert first.spec.config.hidden_dropout_prob == 0.1, "the config that was read stays as it was"


# ---- refusals


def test_as_many_modules_as_layers_are_not_enough_where_each_runs_twice(tiny):
    backbone = Backbone(tiny("albert", num_hidden_layers=2, inner_group_num=2))
    with pytest.raises(InputError, match="its 2 layers run 4 attentions in 2 modules, not one each"):
        backbone.require_prefix()


@pytest.mark.parametrize(
    ("family", "needed", "sizes"),
    [
        ("whisper", "input_features", {}),
        ("vit", "pixel_values", {"image_size": 8, "patch_size": 4}),
        ("blip", "pixel_values", {"text_config": PART, "vision_config": PART | {"image_size": 8, "patch_size": 4}}),
        ("clip", "word embeddings", {"text_config": PART, "vision_config": PART | {"image_size": 8, "patch_size": 4}}),
    ],
)
def test_a_model_of_sounds_or_pictures_is_refused(tiny, family, needed, sizes):
    with pytest.raises(InputError, match=rf"{family}'.* (does not run on token ids alone \(it needs|has no) {needed}"):
        Backbone(tiny(family, **sizes))


@pytest.mark.parametrize("error", [TypeError, ValueError, KeyError, RuntimeError])
@pytest.mark.parametrize("message", ["a bug", "a bug with a prefix in it"])
def test_an_error_of_a_familys_code_is_raised_as_it_is(tiny, monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error(message)

    monkeypatch.setattr(BertEncoder, "forward", fail)
    with pytest.raises(error, match=message) as raised:
        Backbone(tiny("bert"))
    assert raised.type is error


def test_of_an_encoder_decoder_the_encoder_is_the_backbone_and_all_a_checkpoint_needs(tiny, batch, tmp_path):
    encoder = T5EncoderModel.from_pretrained(tiny("t5"))
    encoder.save_pretrained(tmp_path / "encoder")
    whole, alone = Backbone(tiny("t5")), Backbone(str(tmp_path / "encoder"))
    assert not [name for name, _ in whole.named_parameters() if "decoder" in name]
    assert whole.pooling == "mean"
    assert whole.fingerprint == alone.fingerprint
    with torch.no_grad():
        assert torch.equal(whole(batch()), encoder.eval()(**batch()).last_hidden_state)


def test_a_model_without_attention_is_refused_before_its_weights_load(tiny):
    with pytest.raises(InputError, match="model type 'mamba' has no attention"):
        describe(tiny("mamba"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("package:no_such_package/model", "package 'no_such_package' is not installed"),
        ("package:json/model", "no config.json in"),
        ("./nowhere", "no config.json in"),
        ("nobody/no-model", r"is not there .*give a local folder"),
    ],
)
def test_a_backbone_that_is_not_there_is_an_input_error_that_says_where_it_was_sought(name, reason):
    with pytest.raises(InputError, match=reason):
        describe(name)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (".", "'.' is no name of a Python package"),
        ("..", "'..' is no name of a Python package"),
        ("../x", "'..' is no name of a Python package"),
        ("a..b/x", "'a..b' is no name of a Python package"),
        ("nope.nope/x", "'nope.nope' is no name of a Python package"),
        ("json.tool/x", "'json.tool' is no name of a Python package"),
        ("", "'' is no name of a Python package"),
        ("json/../x", "the path '../x' leaves the folder of the package 'json'"),
        ("json/a/../../x", "the path 'a/../../x' leaves the folder of the package 'json'"),
        ("json//etc", "the path '/etc' leaves the folder of the package 'json'"),
        ("os/x", "the Python package 'os' is not installed"),
        ("__main__/x", "the Python package '__main__' is not installed"),
    ],
)
def test_a_package_is_a_plain_name_and_a_path_inside_of_it(monkeypatch, path, reason):
    searched = []
    monkeypatch.setattr("ptune.backbone.pretrained.find_spec", lambda name: searched.append(name) or find_spec(name))
    with pytest.raises(InputError) as refusal:
        describe(f"package:{path}")
    assert f"backbone 'package:{path}': {reason}" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert searched == ([path.partition("/")[0]] if "no name" not in reason else []), "a search for a.b imports a"


@pytest.fixture
def damaged(tiny, tmp_path):
    """A copy of a checkpoint, to be changed: damaged("bert") -> its folder."""
    return lambda *args, **options: Path(shutil.copytree(tiny(*args, **options), tmp_path / "copy"))


def test_a_checkpoint_that_lacks_weights_is_refused_because_they_would_be_random(damaged):
    file = damaged("bert") / "model.safetensors"
    weights = load_file(file)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights.*encoder\.layer\.1\.output\.dense\.weight"):
        Backbone(str(file.parent))


@pytest.mark.parametrize("kept", [0, 100, 0.5, -1], ids=["empty", "header", "half", "all but one byte"])
def test_a_torn_file_of_weights_is_one_sentence(damaged, kept):
    file = damaged("bert") / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else kept])
    with pytest.raises(InputError, match=r"cannot be loaded: .*; give the folder of a complete saved model") as refusal:
        Backbone(str(file.parent))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_size": -1}, "hidden_size: -1, which must be a number from 1 on"),
        ({"hidden_size": "x"}, "'hidden_size'.* expected int, got str"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0, which must be a number from 1 on"),
        ({"dtype": "evil"}, "config.json cannot be read .*evil"),
        ({"vocab_size": -5}, "cannot be loaded: "),
        ({"hidden_act": "evil"}, "cannot be loaded: .*evil"),
        ({"model_type": "evil"}, "config.json cannot be read .*evil"),
        (5, "config.json cannot be read"),
    ],
    ids=str,
)
def test_a_config_that_states_no_model_is_one_sentence(damaged, change, reason):
    file = damaged("bert") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change if isinstance(change, dict) else change))
    with pytest.raises(InputError, match=reason) as refusal:
        Backbone(str(file.parent))
    assert str(file.parent) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_nobody_is_asked_whether_to_run_a_checkpoints_code(damaged, monkeypatch):
    asked, folder = [], damaged("bert")
    monkeypatch.setattr("builtins.input", lambda *args: asked.append(args) or "n")
    for name, key in {"config.json": "AutoConfig", "tokenizer_config.json": "AutoTokenizer"}.items():
        found = json.loads((folder / name).read_text())
        more = {"auto_map": {key: "code.Class"}, "model_type": "no_such", "tokenizer_class": "NoSuchTokenizer"}
        (folder / name).write_text(json.dumps(found | more))
    for read in (describe, load_tokenizer):
        with pytest.raises(InputError, match=r"custom code|no tokenizer can be loaded") as refusal:
            read(str(folder))
        assert "\n" not in str(refusal.value)
    assert asked == []


def test_a_checkpoint_without_safetensors_is_refused(damaged):
    folder = damaged("bert")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot be loaded: .*model\.safetensors"):
        Backbone(str(folder))


# ---- sizes


@pytest.mark.parametrize(
    ("family", "kv_sizes", "positions"),
    [
        ("bert", ((4, 8),) * 3, 48),
        ("gpt2", ((4, 8),) * 3, 48),
        ("distilbert", ((4, 8),) * 3, 48),
        ("llama", ((2, 8),) * 3, 48),
        ("gemma2", ((2, 16),) * 3, 48),
        ("gemma4_text", ((2, 8), (1, 16), (1, 16)), 48),
        ("xlnet", ((4, 8),) * 3, None),
        ("t5", ((4, 16),) * 3, None),
    ],
)
def test_sizes_come_from_the_config_alone(damaged, family, kv_sizes, positions):
    folder = damaged(family)
    (folder / "model.safetensors").unlink()
    spec = describe(str(folder))
    assert (spec.width, spec.layers, spec.heads) == (32, 3, 4)
    assert (spec.kv_sizes, spec.positions) == (kv_sizes, positions)


@pytest.mark.parametrize("shift", [0, P])
@pytest.mark.parametrize("family", TABLES)
def test_room_is_how_many_tokens_fit_shifted_positions_included(tiny, batch, family, shift):
    backbone = Backbone(tiny(family))
    assert backbone.room == TABLES[family]
    backbone(batch(lengths=(backbone.room - shift,)), Prompts(shift=shift))
    with pytest.raises((IndexError, RuntimeError)):
        backbone(batch(lengths=(backbone.room - shift + 1,)), Prompts(shift=shift))


def test_a_vocabulary_as_large_as_the_position_table_is_not_taken_for_it(tiny):
    assert Backbone(tiny("bert", vocab_size=48)).room == 48


def test_relative_positions_without_a_limit_leave_unlimited_room(tiny, batch):
    backbone = Backbone(tiny("xlnet"))
    assert backbone.room is None
    assert backbone(batch(lengths=(60,))).shape == (1, 60, 32)


# ---- fingerprints


def test_the_fingerprint_is_of_the_weights_alone(tiny, damaged):
    fingerprint = Backbone(tiny("bert")).fingerprint
    options = {"dropout": True, "attention": "eager", "pool": "first", "checkpointing": True}
    assert Backbone(str(damaged("bert")), **options).fingerprint == fingerprint
    assert Backbone(tiny("bert", seed=1)).fingerprint != fingerprint


def test_one_weight_changes_the_fingerprint(damaged):
    folder = damaged("bert")
    fingerprint = Backbone(str(folder)).fingerprint
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.2.output.LayerNorm.bias"][-1] += 0.01
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert Backbone(str(folder)).fingerprint != fingerprint


def test_with_the_language_model_the_fingerprint_is_that_of_the_same_layers(tiny, tmp_path):
    """BERT's checkpoints have a pooler, which its masked language model is loaded without."""
    BertForPreTraining(BertConfig.from_pretrained(tiny("bert"))).save_pretrained(tmp_path)
    whole, lm = Backbone(str(tmp_path)), Backbone(str(tmp_path), lm=True)
    assert whole.pooling == "pooler"
    assert whole.fingerprint == lm.fingerprint


def test_weights_the_checkpoint_lacks_do_not_enter_the_fingerprint(tiny):
    path = tiny("roberta", pooler=False)
    assert Backbone(path).fingerprint == Backbone(path).fingerprint


# ---- dropout and checkpointing


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize(
    "family", ["bert", "roberta", "electra", "gpt2", "opt", "distilbert", "xlnet", "deberta-v2", "mpnet"]
)
def test_it_is_in_train_mode_and_drops_out_only_if_asked(tiny, batch, family, dropout):
    backbone = Backbone(tiny(family), dropout=dropout)
    assert all(module.training for module in backbone.modules())
    with torch.no_grad():
        assert torch.equal(backbone(batch()), backbone(batch())) != dropout


@pytest.mark.parametrize("dropout", [False, True])
def test_routers_of_experts_draw_noise_only_with_dropout(tiny, batch, dropout):
    sizes = {"d_ff": 16, "d_kv": 8, "num_layers": 2, "num_sparse_encoder_layers": 1, "num_experts": 2}
    backbone = Backbone(tiny("switch_transformers", **sizes, dropout_rate=0.0), dropout=dropout)
    with torch.no_grad():
        assert torch.equal(backbone(batch()), backbone(batch())) != dropout


@pytest.mark.parametrize(
    ("gated", "dropout"), [(False, False), (False, True), (True, True)], ids=["", "dropout", "gated, dropout"]
)
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "gpt2", "llama", "distilbert", "modernbert"])
def test_checkpointing_recomputes_and_changes_no_loss_and_no_gradient(
    tiny, batch, prefix, sdpa_keys, family, gated, dropout
):
    runs = {}
    for checkpointing in (False, True):
        backbone = Backbone(tiny(family), dropout=dropout, checkpointing=checkpointing).requires_grad_(False)
        kv = prefix(backbone.spec, P).requires_grad_()
        gate = torch.ones(3, 4, requires_grad=True) if gated else None
        torch.manual_seed(0)
        loss = backbone(batch(), Prompts(prefix=kv, gate=gate)).pow(3).mean()
        sdpa_keys.clear()
        loss.backward()
        runs[checkpointing] = [loss.detach(), kv.grad, gate.grad if gated else kv.grad]
        layers = 3 - backbone.reads_part if checkpointing else 0  # the backward pass begins with the last layer
        assert len(sdpa_keys) == layers * (1 + gated), "attention calls in the backward pass"
    assert_close(runs[True], runs[False], atol=1e-6, rtol=1e-5)


def test_checkpointing_recomputes_nothing_below_the_lowest_prompted_layer(tiny, batch, prefix, sdpa_keys):
    backbone = Backbone(tiny("bert"), checkpointing=True).requires_grad_(False)
    kv = prefix(backbone.spec, P, layers=1).requires_grad_()
    loss = backbone(batch(), Prompts(prefix=kv, layers=(1,))).pow(3).mean()
    sdpa_keys.clear()
    loss.backward()
    assert sdpa_keys == [7 + P], "of the second of three layers; the backward pass begins with the third"


@pytest.mark.parametrize("layers", [None, (1,), (2,)])
def test_no_gradient_is_computed_below_the_lowest_prefix(tiny, batch, prefix, layers):
    backbone, needed = Backbone(tiny("bert")).requires_grad_(False), []
    for layer in backbone.model.encoder.layer:
        layer.register_forward_pre_hook(lambda module, args: needed.append(args[0].requires_grad))
    kv = prefix(backbone.spec, P, layers=len(layers or range(3))).requires_grad_()
    backbone(batch(), Prompts(prefix=kv, layers=layers)).sum().backward()
    assert needed == [i > (layers or (0,))[0] for i in range(3)], "what enters the lowest prompted layer needs none"


# ---- input prompts


EMBEDDED = ("bert", "roberta", "electra", "gpt2", "opt", "xlnet", "deberta-v2", "albert", "distilbert", "modernbert")


@pytest.fixture
def slotted(batch):
    """A padded batch whose slots are the second and third token of each text."""
    slots = torch.zeros(3, 7, dtype=torch.bool)
    slots[:, 1:3] = True
    return batch(slots=slots)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("family", EMBEDDED)
def test_input_prompts_are_inputs_embeds_by_hand(tiny, slotted, family, rows):
    backbone = Backbone(tiny(family))
    words = backbone.embed(slotted["input_ids"]).detach()
    embeds = torch.randn(rows, 2, words.shape[2])
    by_hand = words.clone()
    by_hand[:, 1:3] = embeds
    model = AutoModel.from_pretrained(tiny(family)).eval()
    with torch.no_grad():
        ours = backbone(slotted, Prompts(embeds=embeds))
        theirs = model(inputs_embeds=by_hand, attention_mask=slotted["attention_mask"]).last_hidden_state
    assert torch.equal(text(ours, slotted), text(theirs, slotted))
    assert not torch.equal(words, by_hand)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_input_prompts_and_prefix_go_together_and_both_get_gradient(tiny, slotted, prefix, family):
    backbone = Backbone(tiny(family))
    embeds = backbone.embed(slotted["input_ids"][:, 1:3]).detach().requires_grad_()
    kv = prefix(backbone.spec, P, rows=3).requires_grad_()
    both = backbone(slotted, Prompts(embeds=embeds, prefix=kv))
    assert_close(both, backbone(slotted, Prompts(prefix=kv)))
    both.pow(3).mean().backward()
    assert (embeds.grad.abs().amax(2) > 0).all()
    assert (kv.grad.abs().amax((2, 3, 4, 5)) > 0).all()


def test_a_pass_that_is_refused_leaves_no_vectors_for_the_next(tiny, slotted, prefix):
    backbone = Backbone(tiny("bloom"))
    with torch.no_grad():
        plain = backbone(slotted)
        with pytest.raises(InputError, match="cannot be prompted in its layers"):
            backbone(slotted, Prompts(embeds=torch.randn(1, 2, 32), prefix=prefix(backbone.spec, P)))
        assert torch.equal(backbone(slotted), plain)


@pytest.mark.parametrize("family", ["bert", "gpt2", "xlnet", "deberta-v2", "openai-gpt", "mpnet"])
def test_threads_run_forward_passes_of_one_backbone_each_with_its_own_prompts(tiny, slotted, prefix, family):
    backbone = Backbone(tiny(family))
    prompts = [Prompts(embeds=torch.randn(1, 2, 32), prefix=prefix(backbone.spec, P, seed=seed)) for seed in range(2)]
    with torch.no_grad():
        expected = [backbone(slotted, each) for each in prompts]
    both, found = threading.Barrier(2, timeout=30), {}

    def wait(words, inputs):  # between what a pass sets and what its layers read
        both.wait()

    def run(i):
        with torch.no_grad():
            found[i] = backbone(slotted, prompts[i])

    backbone.model.get_input_embeddings().register_forward_pre_hook(wait)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_close([found[0], found[1]], expected, atol=1e-6, rtol=0)
    assert (expected[0] - expected[1]).abs().max() > 1e-2


def test_a_padding_token_that_is_none_is_not_looked_up(tiny):
    assert Backbone(tiny("llama", pad_token_id=None)).room == 48
    folder = tiny("gpt2")
    config = json.loads((Path(folder) / "config.json").read_text())
    for pad in (-1, 1000):
        other = f"{folder}-{pad}"
        shutil.copytree(folder, other)
        (Path(other) / "config.json").write_text(json.dumps(config | {"pad_token_id": pad}))
        assert Backbone(other).traits.packing == "by positions"


def test_what_a_process_has_measured_of_a_backbone_is_not_measured_again(tiny, monkeypatch):
    folder = tiny("roberta")
    monkeypatch.setattr(traits, "_MEASURED", {})
    first = Backbone(folder).traits
    monkeypatch.setattr(traits.Traits, "_measure", lambda self: pytest.fail("measured again"))
    again = Backbone(folder).traits
    for name in ("first_position", "padding_mode", "causal", "packing"):
        assert getattr(again, name) == getattr(first, name)
    for other in ({"dtype": "bf16"}, {"attention": "eager"}, {"dropout": True}):
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            Backbone(folder, **other)


# ---- pooling


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pool", ["first", "last", "mean"])
def test_pooling_by_hand(tiny, batch, pool, side):
    backbone = Backbone(tiny("bert"), pool=pool)
    hidden = torch.randn(3, 7, 32)
    pooled = backbone.pool(hidden, batch(lengths=(7, 5, 3), side=side))
    for row, length in enumerate((7, 5, 3)):
        tokens = hidden[row, :length] if side == "right" else hidden[row, -length:]
        expected = {"first": tokens[0], "last": tokens[-1], "mean": tokens.mean(0)}
        assert_close(pooled[row], expected[pool])


def test_prompt_slots_do_not_enter_the_mean(tiny, slotted):
    hidden = torch.randn(3, 7, 32)
    pooled = Backbone(tiny("bert"), pool="mean").pool(hidden, slotted)
    for row, length in enumerate((7, 5, 3)):
        assert_close(pooled[row], torch.stack([hidden[row, i] for i in range(length) if i not in (1, 2)]).mean(0))


@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "albert", "big_bird"])
def test_the_pooler_is_the_checkpoints_own(tiny, batch, family):
    sizes = {"attention_type": "original_full"} if family == "big_bird" else {}
    backbone = Backbone(tiny(family, **sizes))
    assert backbone.pooling == "pooler"
    with torch.no_grad():
        ours = backbone.pool(backbone(batch()), batch())
        theirs = AutoModel.from_pretrained(tiny(family, **sizes)).eval()(**batch()).pooler_output
    assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("family", "pooling"),
    [("bert", "pooler")]
    + [(family, "first") for family in ("electra", "distilbert", "modernbert", "deberta")]
    + [(family, "last") for family in ("gpt2", "llama", "opt", "bloom", "xlnet")],
)
def test_a_backbone_is_pooled_as_its_family_was_trained(tiny, family, pooling):
    assert Backbone(tiny(family)).pooling == pooling


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_pooler_the_checkpoint_lacks_is_not_used_at_random(tiny, family):
    path = tiny(family, pooler=False)
    backbone = Backbone(path)
    assert (backbone.pooling, backbone.pooler) == ("first", None)
    with pytest.raises(InputError, match="has no trained one"):
        Backbone(path, pool="pooler")


@pytest.mark.parametrize("family", ["electra", "gpt2"])
def test_a_family_without_pooler_cannot_be_pooled_by_one(tiny, family):
    with pytest.raises(InputError, match="has no trained one"):
        Backbone(tiny(family), pool="pooler")


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "layoutlm"])
def test_a_pooler_that_nothing_reads_is_removed(tiny, batch, family):
    pooled, other = (Backbone(tiny(family), pool=pool) for pool in ("auto", "first"))
    names = [name for name, _ in other.named_parameters() if "pooler" in name]
    assert names == []
    assert sum(x.numel() for x in pooled.parameters()) - sum(x.numel() for x in other.parameters()) == 32 * 32 + 32
    with torch.no_grad():
        assert torch.equal(other(batch()), pooled(batch()))


@pytest.mark.parametrize(
    ("modes", "pooling"),
    [({"pooling_mode_mean_tokens": True}, "mean"), ({"pooling_mode_cls_token": True}, "first"), ({}, "pooler")],
)
def test_a_sentence_encoder_is_pooled_as_its_own_file_says(damaged, modes, pooling):
    folder = damaged("bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    assert Backbone(str(folder)).pooling == pooling
    assert Backbone(str(folder), pool="last").pooling == "last"


# ---- keys and values of real tokens


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "gpt2", "llama", "opt"])
def test_keys_and_values_of_tokens_are_those_a_cache_would_hold(tiny, batch, kv_cache, family):
    ids = batch(lengths=(5, 5))["input_ids"]
    model = AutoModel.from_pretrained(tiny(family)).eval()
    held = kv_cache(model)
    with torch.no_grad():
        model(input_ids=ids, **held)
    backbone = Backbone(tiny(family), dropout=True)
    (cache,) = held.values()
    expected = tuple(torch.stack([layer.keys, layer.values]) for layer in cache.layers)
    assert_close(backbone.keys_values(ids), expected, atol=1e-6, rtol=0)
    assert all(module.training for module in backbone.modules()), "reading them leaves the mode as it was"


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_the_keys_and_values_of_a_text_as_prefix_are_that_text_in_front(tiny, batch, family):
    backbone = Backbone(tiny(family))
    ids = batch(lengths=(9,))["input_ids"]
    with torch.no_grad():
        prompts = Prompts(prefix=backbone.keys_values(ids[:, :P]), shift=P)
        assert_close(
            backbone({"input_ids": ids[:, P:]}, prompts), backbone({"input_ids": ids})[:, P:], atol=5e-6, rtol=0
        )


def test_keys_and_values_of_a_backbone_that_ignores_prefixes_are_refused(tiny, batch):
    with pytest.raises(InputError, match="cannot be prompted"):
        Backbone(tiny("bloom")).keys_values(batch()["input_ids"])


def test_the_embedding_is_of_words_alone(tiny, batch):
    backbone = Backbone(tiny("electra"))
    ids = batch()["input_ids"]
    table = load_file(Path(tiny("electra")) / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert torch.equal(backbone.embed(ids), F.embedding(ids, table))
    assert table.shape[1] == 16


def test_loading_a_checkpoint_without_pooler_reports_nothing(tiny, capsys, caplog):
    Backbone(tiny("roberta", pooler=False))
    printed = capsys.readouterr()
    assert "pooler" not in printed.out + printed.err + caplog.text
