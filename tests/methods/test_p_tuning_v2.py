"""P-Tuning v2: layout, counts, initialisations, the reparameterization, and what it is compared with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from ptune.backbone import Backbone
from ptune.errors import InputError
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.prompts import Prompts
from ptune.tuning.layered import chosen_layers
from ptune.tuning.prefix import PrefixEncoder

LABELS = torch.tensor([0, 1, 2])
P, L, H, K = 5, 3, 4, 8  # of the tiny models
SIZES = [(H, K)] * L


@pytest.fixture
def build(tiny, head):
    """A model with its weights loaded: build("gpt2", length=3)."""

    def make(family="bert", method=PTuningV2, task="classify", seed=0, **arguments):
        torch.manual_seed(seed)
        model = method(**{"backbone": tiny(family), "head": head(task)} | arguments)
        model.configure_model()
        return model

    return make


def scores(model, inputs):
    """Scores without dropout."""
    with torch.no_grad():
        return model.eval()(inputs)


# ---- the encoder alone


def test_block_2l_is_layer_ls_key_and_block_2l_plus_1_its_value():
    encoder = PrefixEncoder(P, SIZES)
    width = H * K
    # Every number tells its place: 1000 * vector + 100 * block + feature.
    place = 1000 * torch.arange(P)[:, None, None] + 100 * torch.arange(2 * L)[:, None] + torch.arange(width)
    encoder.flat.data.copy_(place.flatten(1))
    prefix = encoder()
    assert [tuple(layer.shape) for layer in prefix] == [(2, 1, H, P, K)] * L
    for layer in range(L):
        for half, name in enumerate(("key", "value")):
            for head in range(H):
                for vector in range(P):
                    start = 1000 * vector + 100 * (2 * layer + half) + head * K
                    assert prefix[layer][half, 0, head, vector].tolist() == list(range(start, start + K)), name


def test_writing_a_prefix_is_the_inverse_of_reading_it():
    sizes = [(H, K), (1, 2 * K), (H, K)]
    encoder, prefix = PrefixEncoder(P, sizes), tuple(torch.randn(2, 1, h, P, k) for h, k in sizes)
    encoder.set(prefix)
    for read, written in zip(encoder(), prefix, strict=True):
        assert torch.equal(read, written)
    assert encoder.flat.requires_grad


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ((20, [(16, 64)] * 24), 983_040),  # the paper's: BERT-large, P = 20
        ((128, [(16, 64)] * 24), 6_291_456),
        ((7, [(12, 64)] * 12), 7 * 2 * 12 * 768),
        ((7, [(8, 64)] * 16), 7 * 2 * 16 * 512),  # grouped queries: key/value heads count
        ((7, [(4, 256), (4, 256), (1, 512)]), 7 * 2 * (2 * 1024 + 512)),  # Gemma 4's layers differ
    ],
)
def test_a_flat_table_has_p_times_2_l_h_parameters(sizes, count):
    assert [value.numel() for value in PrefixEncoder(*sizes).parameters()] == [count]


@pytest.mark.parametrize(("p", "l", "heads", "k", "m"), [(20, 24, 16, 64, 512), (3, 2, 4, 8, 5)])
def test_the_mlp_has_the_parameters_of_its_two_layers_and_the_embedding(p, l, heads, k, m):
    h = heads * k
    encoder = PrefixEncoder(p, [(heads, k)] * l, width=h, mlp=m)
    assert sum(value.numel() for value in encoder.parameters()) == p * h + (h * m + m) + (m * 2 * l * h + 2 * l * h)


def test_a_model_of_bert_large_trains_the_papers_count_and_needs_no_weights_to_know(tmp_path, head):
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    AutoConfig.for_model("bert", **sizes).save_pretrained(tmp_path)
    model = PTuningV2(backbone=str(tmp_path), head=head("classify"), length=20)
    counts = {group: sum(x.numel() for x in tensors.values()) for group, tensors in model.groups().items()}
    assert counts == {"prompt": 983_040, "head": 3 * 1024 + 3}


def test_it_starts_at_a_standard_deviation_of_0_02_with_zero_biases():
    torch.manual_seed(0)
    for encoder in (PrefixEncoder(20, [(4, 16)] * 6), PrefixEncoder(20, [(4, 16)] * 6, width=64, mlp=64)):
        for name, value in encoder.named_parameters():
            if name.endswith("bias"):
                assert (value == 0).all()
            else:
                assert value.detach().std() == pytest.approx(0.02, rel=0.05), name
                assert value.detach().mean().abs() < 0.002, name


def test_the_mlp_is_embedding_linear_tanh_linear():
    encoder = PrefixEncoder(P, SIZES, width=32, mlp=6)
    for value in encoder.parameters():
        nn.init.normal_(value)
    first, _, second = encoder.mlp
    hidden = torch.tanh(encoder.embedding @ first.weight.T + first.bias)
    assert_close(encoder.table(), hidden @ second.weight.T + second.bias)


def test_the_encoder_and_the_backbone_are_enough_without_lightning(tiny, batch):
    backbone = Backbone(tiny("bert"))
    encoder = PrefixEncoder(P, SIZES)
    hidden = backbone(batch(), Prompts(prefix=encoder()))
    assert hidden.shape == (3, 7, 32)
    hidden.sum().backward()
    assert encoder.flat.grad.abs().sum() > 0


# ---- folding


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_a_folded_mlp_scores_as_the_unfolded_one_and_is_a_flat_table(build, batch, family):
    model = build(family, length=P, mlp=6)
    nn.init.normal_(model.prompt.encoder.embedding)
    nn.init.normal_(model.prompt.encoder.mlp[2].weight)
    before = scores(model, batch())
    model.fold()
    assert_close(scores(model, batch()), before, atol=1e-6, rtol=0)
    assert set(model.trained()) == {"prompt.encoder.flat", "head.linear.weight", "head.linear.bias"}
    assert all(value.requires_grad for value in model.trained().values())
    again = scores(model, batch())
    model.fold()
    assert torch.equal(scores(model, batch()), again), "folding twice is folding once"


# ---- PEFT


@pytest.mark.peft_prefix
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("family", "task", "theirs"),
    [
        ("bert", "classify", AutoModelForSequenceClassification),  # the pretrained pooler, then one linear layer
        ("bert", "tag", AutoModelForTokenClassification),
        ("roberta", "tag", AutoModelForTokenClassification),
        ("electra", "tag", AutoModelForTokenClassification),
        ("gpt2", "tag", AutoModelForTokenClassification),
    ],
)
def test_scores_are_pefts_for_the_same_table_and_head(build, tiny, batch, family, task, theirs, attention):
    model = build(family, task=task, length=P, shift_positions=True, attention=attention)
    nn.init.normal_(model.prompt.encoder.flat)
    plain = theirs.from_pretrained(tiny(family), num_labels=3, attn_implementation=attention)
    plain.classifier.weight.data.copy_(model.head.linear.weight)
    plain.classifier.bias.data.copy_(model.head.linear.bias)
    kind = "SEQ_CLS" if task == "classify" else "TOKEN_CLS"
    other = peft.get_peft_model(plain, peft.PrefixTuningConfig(task_type=kind, num_virtual_tokens=P)).eval()
    other.prompt_encoder["default"].embedding.weight.data.copy_(model.prompt.encoder.flat)
    with torch.no_grad():
        expected = other(**batch()).logits
    ours = scores(model, batch())
    text = batch()["attention_mask"].bool() if task == "tag" else slice(None)
    assert_close(ours[text], expected[text], atol=1e-5, rtol=0)
    model.hparams["shift_positions"] = False
    assert not torch.allclose(scores(model, batch())[text], expected[text], atol=1e-3), "unshifted it is not"


# ---- refusals


@pytest.mark.parametrize("family", ["bloom"])
def test_a_backbone_that_would_ignore_the_prefix_is_refused_before_the_first_step(tiny, head, fit, batch, family):
    model = PTuningV2(backbone=tiny(family), head=head("classify"))
    with pytest.raises(InputError, match=rf"model type '{family}'.*(layer|h|modules).* a method without a prefix"):
        fit(model, [batch(labels=LABELS)])
    assert model.global_step == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"length": 0}, "length: 0 must be at least 1"),
        ({"prefix_dropout": 1.0}, "prefix_dropout: 1.0 must be at least 0 and below 1"),
        ({"mlp": -1}, "mlp: -1 must be at least 0"),
        ({"init": "text"}, "init_text: '' and init: 'text' do not fit"),
        ({"init_text": "w1"}, "init_text: 'w1' and init: 'normal' do not fit"),
        ({"init": "text", "init_text": "w1", "mlp": 4}, "mlp: 4 cannot start from init: 'text'"),
        ({"init": "identity", "shift_positions": True}, "init: identity would not be the identity"),
        ({"layers": "last:4"}, "layers: 'last:4' is not `all`, `last:N` with N from 1 to 3"),
    ],
)
def test_an_impossible_argument_is_an_input_error_before_the_weights_load(tiny, head, arguments, reason):
    with pytest.raises(InputError, match=reason):
        PTuningV2(backbone=tiny("bert"), head=head("classify"), **arguments)


def test_shifted_positions_are_refused_where_they_would_change_nothing(tiny, head, fit, batch):
    model = PTuningV2(backbone=tiny("xlnet"), head=head("classify"), shift_positions=True)
    with pytest.raises(InputError, match=r"shift_positions: .*'xlnet'.* cannot be shifted"):
        fit(model, [batch(labels=LABELS)])


# ---- layers


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [("all", (0, 1, 2)), ("last:1", (2,)), ("last:3", (0, 1, 2)), ([0], (0,)), ([2, 0], (0, 2))],
)
def test_layers_are_all_the_last_n_or_a_list(layers, chosen):
    assert chosen_layers(layers, 3) == chosen


@pytest.mark.parametrize(
    "layers", ["last:0", "last:4", "last:", "last:²", "last", "first:1", "", "3", [], [3], [-1], [1, 1]]
)
def test_anything_else_is_an_input_error(layers):
    with pytest.raises(InputError, match="layers: "):
        chosen_layers(layers, 3)


def test_all_layers_by_number_are_all_layers(build, batch):
    assert torch.equal(scores(build(layers="all"), batch()), scores(build(layers=[0, 1, 2]), batch()))


@pytest.mark.parametrize("layers", ["last:1", "last:2", [0, 2]])
def test_other_layers_stay_untouched_and_below_the_lowest_no_gradient_is_computed(build, batch, sdpa_keys, layers):
    model = build(layers=layers, length=P)
    tracked = []
    for layer in model.backbone.model.encoder.layer:
        layer.register_forward_hook(lambda module, args, output: tracked.append(output.requires_grad))
    sdpa_keys.clear()
    model(batch()).sum().backward()
    assert sdpa_keys == [7 + P if layer in model.layers else 7 for layer in range(3)]
    assert tracked == [layer >= min(model.layers) for layer in range(3)]


@pytest.mark.parametrize("arguments", [{}, {"mlp": 6}, {"layers": [0, 2]}, {"init": "identity"}], ids=str)
def test_norms_are_logged_for_each_prompted_layer(build, batch, arguments):
    model = build(**{"length": P} | arguments)
    if model.prompt.gate is not None:
        nn.init.ones_(model.prompt.gate)
    inputs = batch(labels=LABELS)
    model.head.loss(model(inputs), inputs)[0].backward()
    norms = model.layer_norms()
    assert set(norms) == {f"prompt_{kind}norm/layer_{i:02d}" for kind in ("", "grad_") for i in model.layers}
    for row, layer in enumerate(model.layers):
        assert_close(norms[f"prompt_norm/layer_{layer:02d}"], model.prompt.encoder()[row].norm().detach())
        assert norms[f"prompt_grad_norm/layer_{layer:02d}"] > 0


# ---- dropout on the prefix


def test_prefix_dropout_is_drawn_for_each_text_in_training_alone(build, batch):
    model = build(prefix_dropout=0.5, head_dropout=0.0)
    same = {key: value[:1].expand(3, -1) for key, value in batch().items()}
    torch.manual_seed(0)
    rows = model.train()(same)
    assert not torch.equal(rows[0], rows[1])
    assert_close(*scores(model, same)[:2])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_each_number_of_each_text_is_kept_for_itself_and_grows_by_the_share_of_the_others(build, batch, rate):
    model = build(prefix_dropout=rate).train()
    drawn = torch.stack([torch.stack(model.prompts(batch((5,) * 32)).kept) for _ in range(20)])
    assert drawn.shape == (20, L, 2, 32, H, 20, K)
    values = drawn.unique()
    assert_close(values, torch.tensor([0, 1 / (1 - rate)]))
    kept = (drawn > 0).double()
    n = kept.numel()
    assert kept.mean() == pytest.approx(1 - rate, abs=5 * (rate * (1 - rate) / n) ** 0.5)
    for dim in range(drawn.ndim):  # neighbours along every axis are independent
        size = kept.shape[dim]
        one, other = kept.narrow(dim, 0, size - 1), kept.narrow(dim, 1, size - 1)
        together = (one * other).mean()
        assert together == pytest.approx((1 - rate) ** 2, abs=5 / one.numel() ** 0.5), dim


@pytest.mark.parametrize("form", ["table", "hidden"])
@pytest.mark.parametrize("arguments", [{}, {"gate": True}, {"checkpointing": True}, {"layers": [0, 2]}], ids=str)
def test_dropout_is_the_prefix_of_each_text_with_some_of_its_numbers_zero(build, batch, form, arguments):
    model, inputs = build(form=form, prefix_dropout=0.5, head_dropout=0.0, **arguments).train(), batch(labels=LABELS)
    if model.prompt.gate is not None:
        nn.init.ones_(model.prompt.gate)

    def trained(given):
        scores = model.head(model.backbone(inputs, given), inputs, model.backbone)
        model.head.loss(scores, inputs)[0].backward()
        found = [scores.detach(), *(value.grad for value in model.trained().values())]
        model.zero_grad()
        return found

    torch.manual_seed(0)
    prompts = model.prompts(inputs)
    copied = tuple(layer * kept for layer, kept in zip(prompts.prefix, prompts.kept, strict=True))
    assert copied[0].shape[1] == len(LABELS)
    expected = trained(replace(prompts, prefix=copied, kept=None))
    torch.manual_seed(0)
    assert_close(trained(model.prompts(inputs)), expected, atol=1e-6, rtol=1e-5)


def test_without_prefix_dropout_one_prefix_serves_all_texts(build, batch):
    for model in (build(prefix_dropout=0.0).train(), build().eval()):
        prompts = model.prompts(batch())
        assert [layer.shape for layer in prompts.prefix] == [(2, 1, H, 20, K)] * L
        assert prompts.kept is None


# ---- initialisations


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize(("length", "tokens"), [(3, [5, 6, 7]), (2, [5, 6]), (7, [5, 6, 7, 5, 6, 7, 5])])
def test_text_starts_from_keys_and_values_of_its_tokens_repeated_or_cut(build, tiny, family, length, tokens):
    model = build(family, length=length, init="text", init_text="w1 w2 w3")
    assert AutoTokenizer.from_pretrained(tiny(family))("w1 w2 w3")["input_ids"] == [5, 6, 7]
    assert_close(model.prompt.encoder(), Backbone(tiny(family)).keys_values(torch.tensor([tokens])), atol=0, rtol=0)


def test_text_starts_each_prompted_layer_from_its_own_keys_and_values(build):
    everywhere, two = (build(init="text", init_text="w1 w2", layers=layers) for layers in ("all", [0, 2]))
    assert_close(two.prompt.encoder(), everywhere.prompt.encoder()[::2], atol=0, rtol=0)


def test_a_text_without_tokens_is_refused(build):
    with pytest.raises(InputError, match="init_text: ' ' has no tokens"):
        build(init="text", init_text=" ")


def test_a_text_longer_than_the_positions_is_refused(build):
    with pytest.raises(InputError, match=r"length: 49 vectors do not fit into the 48 positions of .*; use 48 or less"):
        build(length=49, init="text", init_text="w1")


def test_a_text_where_there_is_no_tokenizer_is_refused(build, tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "copy"))
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="tokenizer"):
        build(backbone=str(folder), init="text", init_text="w1")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "gpt2", "llama", "distilbert"])
def test_identity_starts_as_the_backbone(build, batch, family, attention):
    model = build(family, init="identity", attention=attention)
    probe = build(family, method=LinearProbe, attention=attention)
    probe.head.load_state_dict(model.head.state_dict())
    assert_close(scores(model, batch()), scores(probe, batch()), atol=1e-6, rtol=0)
    assert (model.prompt.encoder.flat != 0).all(), "a zero prefix would get no gradient ever"


def test_at_identity_the_gate_moves_first_and_the_prefix_from_the_second_step(build, fit, batch):
    model = build(init="identity", lr=0.1, schedule="constant")
    start = {name: value.detach().clone() for name, value in model.trained().items()}
    fit(model, [batch(labels=LABELS)])
    assert (model.prompt.gate != 0).all()
    assert torch.equal(model.prompt.encoder.flat, start["prompt.encoder.flat"])
    fit(model, [batch(labels=LABELS)])
    assert not torch.equal(model.prompt.encoder.flat, start["prompt.encoder.flat"])


# ---- training


@pytest.mark.parametrize("arguments", [{}, {"mlp": 8}, {"init": "identity"}, {"shift_positions": True}], ids=str)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_prefix_alone_can_learn(build, batch, family, arguments):
    model = build(family, prefix_dropout=0.0, head_dropout=0.0, **arguments)
    inputs = batch(labels=LABELS)
    optimizer = torch.optim.Adam(model.prompt.parameters(), lr=0.05)
    nn.init.normal_(model.head.linear.weight)
    losses = []
    for _ in range(15):
        total, count = model.head.loss(model(inputs), inputs)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append((total / count).item())
    assert losses[-1] < 0.7 * losses[0]


def test_every_block_of_the_table_gets_gradient(build, batch):
    model = build(length=P)
    inputs = batch(labels=LABELS)
    model.head.loss(model(inputs), inputs)[0].backward()
    blocks = model.prompt.encoder.flat.grad.view(P, 2 * L, H * K)
    assert (blocks.abs().amax(2) > 0).all(), "every vector, layer, key and value"


def test_the_loss_of_a_training_step_is_the_mean_over_its_terms(build, batch, head, fit):
    model = build(task="tag", prefix_dropout=0.0, head_dropout=0.0, lr=1e-9)
    labels = torch.tensor([[-100, 1, 2, 0, -100, 1, -100], [0] + [-100] * 6, [-100, -100, 2] + [-100] * 4])
    inputs = batch(labels=labels)
    trainer = fit(model, [inputs])
    expected = F.cross_entropy(scores(model, inputs).transpose(1, 2), labels)
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert json.dumps(float(trainer.callback_metrics["val/accuracy"]))
