"""What every model family does with a prefix, or says that it does not."""

import pytest
import torch
from families import (
    CACHED,
    CACHELESS,
    EAGER,
    FAMILIES,
    GEMMAS,
    LAYERS,
    OWN,
    PAIRS,
    SOME,
    UNSHARED,
    UNSHIFTED,
    automodel,
    prompted,
    text,
)
from torch.nn import functional as F
from torch.testing import assert_close

from ptune.backbone import Backbone
from ptune.backbone.visitor import Visitor
from ptune.errors import InputError
from ptune.prompts import Prompts

P = 4
# A cache falls out of a narrow window, a prefix does not.
WIDE = {family: {"sliding_window": 40} | UNSHARED.get(family, {}) for family in ("mistral", *GEMMAS)}
ROUTES = [(family, attention) for family, attention in PAIRS if family in CACHED]

each_family = pytest.mark.parametrize("family", FAMILIES)
each_pair = pytest.mark.parametrize(("family", "attention"), PAIRS)


@each_family
def test_every_layer_consumes_its_own_prefix_once(frozen, batch, prefix, monkeypatch, family):
    backbone = frozen(family)
    whole, at, consumed = prompted(backbone, prefix(backbone.spec, P)), Prompts.at, []

    def spy(self, module, key, value):
        found = at(self, module, key, value)
        consumed.append([row for row in LAYERS if torch.equal(found[0][:1], whole.prefix[row][0])])
        return found

    monkeypatch.setattr(Prompts, "at", spy)
    backbone(batch(), whole)
    assert consumed == [[0], [1], [2]]


@each_pair
def test_the_key_and_value_of_each_layer_change_the_output_and_get_gradient(frozen, batch, prefix, family, attention):
    backbone = frozen(family, attention)
    inputs, kv = batch(), prefix(backbone.spec, P).requires_grad_()
    output = text(backbone(inputs, prompted(backbone, kv)), inputs)
    output.pow(3).sum().backward()
    assert (kv.grad.abs().amax((2, 3, 5)) > 1e-4).all(), "one number a layer, key and value, and vector"
    assert (kv.grad.abs().amax((2, 3, 4, 5)) > 1e-3).all()
    with torch.no_grad():
        for layer in LAYERS:
            for half in range(2):
                other = kv.detach().clone()
                other[layer, half] *= -1
                moved = (text(backbone(inputs, prompted(backbone, other)), inputs) - output).abs().max()
                assert moved > 1e-3, (layer, half)


@each_pair
def test_without_prompts_it_is_automodel_bit_for_bit_even_after_a_prompted_pass(
    tiny, frozen, batch, prefix, family, attention
):
    backbone, model = frozen(family, attention), automodel(tiny(family), family, attention)
    with torch.no_grad():
        backbone(batch(), prompted(backbone, prefix(backbone.spec, P)))
        expected = model(**batch()).last_hidden_state
        assert torch.equal(backbone(batch()), expected)
        assert torch.equal(backbone(batch(), Prompts()), expected)


@each_pair
def test_a_zero_gate_is_the_backbone_and_an_open_one_is_not(frozen, batch, prefix, family, attention):
    backbone = frozen(family, attention)
    inputs, kv = batch(), prefix(backbone.spec, P)
    gate = torch.zeros(backbone.spec.layers, backbone.spec.heads)
    slack = 1e-6 if family in EAGER else 3e-6
    with torch.no_grad():
        plain = backbone(inputs)
        assert_close(backbone(inputs, prompted(backbone, kv, gate=gate)), plain, atol=slack, rtol=0)
        for layer in LAYERS:
            opened = gate.clone()
            opened[layer] = 1.0
            assert text(backbone(inputs, prompted(backbone, kv, gate=opened)) - plain, inputs).abs().max() > 1e-3


@each_family
def test_layers_left_out_are_as_without_prefix(frozen, batch, prefix, family):
    backbone = frozen(family)
    inputs, kv = batch(), prefix(backbone.spec, P)
    gate = torch.zeros(backbone.spec.layers, backbone.spec.heads)
    gate[1] = 1.0
    with torch.no_grad():
        some = backbone(inputs, prompted(backbone, kv[1:2], gate=gate[1:2], layers=(1,)))
        assert_close(some, backbone(inputs, prompted(backbone, kv, gate=gate)), atol=3e-6, rtol=0)


@pytest.mark.parametrize("gated", [False, True], ids=["", "gated"])
@each_pair
def test_a_padded_batch_with_one_prefix_or_its_own_is_its_texts_one_by_one(
    frozen, batch, prefix, family, attention, gated
):
    backbone = frozen(family, attention)
    gate = torch.randn(backbone.spec.layers, backbone.spec.heads) if gated else None
    inputs = batch()
    for rows in (1, 3):
        kv = prefix(backbone.spec, P, rows=rows)
        with torch.no_grad():
            together = backbone(inputs, prompted(backbone, kv, gate=gate))
            for row, length in enumerate(inputs["attention_mask"].sum(1)):
                one = {"input_ids": inputs["input_ids"][row : row + 1, :length]}
                own = kv if rows == 1 else kv[:, :, row : row + 1]
                alone = backbone(one, prompted(backbone, own, gate=gate))
                assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", [name for name in (*FAMILIES, "splinter") if name not in (*OWN, "gemma2")])
def test_sdpa_is_eager(frozen, batch, prefix, family):
    inputs, outputs = batch(), []
    for attention in ("sdpa", "eager"):
        backbone = frozen(family, attention)
        with torch.no_grad():
            outputs.append(text(backbone(inputs, prompted(backbone, prefix(backbone.spec, P))), inputs))
    assert_close(*outputs, atol=5e-6 if family in EAGER else 1e-5, rtol=1e-5)


@each_family
def test_models_of_one_family_do_not_disturb_each_other(tiny, batch, prefix, family):
    first = Backbone(tiny(family))
    prompts = prompted(first, prefix(first.spec, P))
    with torch.no_grad():
        before = first(batch(), prompts)
        second = Backbone(tiny(family, seed=1))
        second(batch(), prompted(second, prefix(second.spec, P, seed=1)))
        assert torch.equal(first(batch(), prompts), before)
        model = automodel(tiny(family), family)
        assert type(model).__module__.startswith("transformers."), "classes are replaced in our model alone"


@pytest.mark.parametrize("family", [*FAMILIES, "splinter"])
def test_a_shift_of_positions_reaches_the_model_or_is_refused(frozen, batch, prefix, family):
    backbone = frozen(family)
    if family in UNSHIFTED:
        with pytest.raises(InputError, match=rf"shift_positions: .*'{family}'.* cannot be shifted"):
            backbone.require_shift()
        return
    backbone.require_shift()
    inputs, kv = batch(), prefix(backbone.spec, P)
    with torch.no_grad():
        moved = backbone(inputs, prompted(backbone, kv, shift=P)) - backbone(inputs, prompted(backbone, kv))
    assert text(moved, inputs).abs().max() > 0.01


@each_family
def test_the_keys_and_values_of_real_tokens_fit_as_a_prefix(frozen, batch, family):
    backbone = frozen(family)
    kv = backbone.keys_values(batch(lengths=(P,))["input_ids"])
    assert [layer.shape for layer in kv] == [(2, 1, h, P, k) for h, k in backbone.spec.kv_sizes]
    with torch.no_grad():
        assert backbone(batch(), Prompts(prefix=kv)).isfinite().all()


@each_family
def test_a_slot_filled_with_a_words_own_embedding_is_that_word_and_any_other_vector_is_not(frozen, batch, family):
    backbone = frozen(family)
    inputs = batch(slots=(torch.arange(7) < 2).expand(3, -1))
    with torch.no_grad():
        words = backbone.embed(inputs["input_ids"][:, :2])
        prompts = (None, Prompts(embeds=words), Prompts(embeds=-words))
        plain, same, other = (text(backbone(inputs, prompt), inputs) for prompt in prompts)
    assert_close(same, plain, atol=1e-6, rtol=0)
    moved = (other - plain).abs().amax(1)
    assert (moved[[0, 7, 12]] > 1e-3).all(), "of each text"


# ---- the cache route


@pytest.fixture
def cache_route(kv_cache):
    """The hidden states of transformers where the prefix is a KV cache with a mask of ones."""

    def run(path, family, attention, inputs, prefix):
        model = automodel(path, family, attention)
        cache = kv_cache(model, prefix, rows=len(inputs["input_ids"]))
        if "attention_mask" in inputs:
            inputs = inputs | {"attention_mask": F.pad(inputs["attention_mask"], (P, 0), value=1)}
        return model(**inputs, **cache).last_hidden_state

    return run


@pytest.mark.parametrize(("family", "attention"), ROUTES)
def test_at_equal_positions_it_is_transformers_cache_route(tiny, batch, prefix, cache_route, family, attention):
    path = tiny(family, **WIDE.get(family, {}))
    backbone = Backbone(path, attention=attention)
    inputs, kv = batch(), prefix(backbone.spec, P)
    with torch.no_grad():
        theirs = cache_route(path, family, attention, inputs, prompted(backbone, kv).prefix)
        ours = backbone(inputs, prompted(backbone, kv, shift=P))
    slack = 1e-6 if family in EAGER and family not in WIDE else 5e-6
    assert_close(text(ours, inputs), text(theirs, inputs), atol=slack, rtol=0)


@pytest.mark.parametrize("mask", ["of ones", "absent"])
@pytest.mark.parametrize(("family", "attention"), [pair for pair in ROUTES if pair[0] in ("gpt2", "llama", "opt")])
def test_causal_without_padding_it_is_the_cache_route_too(
    tiny, frozen, batch, prefix, cache_route, family, attention, mask
):
    backbone = frozen(family, attention)
    inputs, kv = batch(lengths=(6, 6)), prefix(backbone.spec, P)
    if mask == "absent":
        del inputs["attention_mask"]
    with torch.no_grad():
        ours = backbone(inputs, Prompts(prefix=kv, shift=P))
        theirs = cache_route(tiny(family), family, attention, inputs, kv)
    assert_close(ours, theirs, atol=1e-6, rtol=0)


# ---- attention written down: each family's own formula for a query i and a key j


def split(x, heads):
    """ "... (h k)" to "... h k"."""
    return x.unflatten(-1, (heads, -1))


def plain(q, k, v, o):
    def parts(model, m, hidden, layer):
        heads = model.config.num_attention_heads
        query, key, value = (split(getattr(m, name)(hidden), heads) for name in (q, k, v))
        return query, key, value, query.shape[-1] ** -0.5, lambda b, i, j: 0.0, getattr(m, o)

    return parts


def gpt(model, m, hidden, layer):
    query, key, value = (split(x, model.config.n_head) for x in m.c_attn(hidden).chunk(3, dim=-1))
    return query, key, value, query.shape[-1] ** -0.5, lambda b, i, j: -torch.inf if j > i else 0.0, m.c_proj


def t5(model, m, hidden, layer):
    heads = model.config.num_heads
    table = model.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    query, key, value = (split(project(hidden), heads) for project in (m.q, m.k, m.v))
    return query, key, value, 1.0, lambda b, i, j: table[16 * (j > i) + abs(i - j)], m.o


def mpnet(model, m, hidden, layer):
    query, key, value, scale, _, o = plain("q", "k", "v", "o")(model, m, hidden, layer)
    table = model.encoder.relative_attention_bias.weight
    return query, key, value, scale, lambda b, i, j: table[16 * (j > i) + abs(i - j)], o


def modernbert(model, m, hidden, layer):
    kind = model.config.layer_types[layer]
    query, key, value = split(m.Wqkv(hidden), 3 * model.config.num_attention_heads).chunk(3, dim=2)
    half = query.shape[-1] // 2
    theta = model.config.rope_parameters[kind]["rope_theta"]
    turns = torch.arange(hidden.shape[1])[:, None] * theta ** (-torch.arange(half) / half)

    def rotate(x):
        number = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones(turns.shape), turns)[:, None]
        return torch.cat([number.real, number.imag], dim=-1)

    reach = model.config.local_attention // 2 if kind == "sliding_attention" else hidden.shape[1]
    hidden_from = lambda b, i, j: 0.0 if abs(i - j) <= reach else -torch.inf  # noqa: E731
    return rotate(query), rotate(key), value, query.shape[-1] ** -0.5, hidden_from, m.Wo


def deberta(model, m, hidden, layer):
    heads = model.config.num_attention_heads
    query, key, value = split(m.in_proj(hidden), heads).chunk(3, dim=-1)
    query, value = query + split(m.q_bias, heads), value + split(m.v_bias, heads)
    table = model.encoder.rel_embeddings.weight
    to_position, from_position = split(m.pos_proj(table), heads), split(m.pos_q_proj(table), heads)
    return disentangled(query, key, value, to_position, from_position, m.max_relative_positions)


def deberta_v2(model, m, hidden, layer):
    heads = model.config.num_attention_heads
    query, key, value = (split(project(hidden), heads) for project in (m.query_proj, m.key_proj, m.value_proj))
    table = model.encoder.get_rel_embedding()
    to, of = (m.key_proj, m.query_proj) if m.share_att_key else (m.pos_key_proj, m.pos_query_proj)
    return disentangled(query, key, value, split(to(table), heads), split(of(table), heads), m.pos_ebd_size)


def disentangled(query, key, value, to_position, from_position, middle):
    scale = (3 * query.shape[-1]) ** -0.5

    def bias(b, i, j):
        at = middle + i - j
        return scale * (query[b, i] * to_position[at] + key[b, j] * from_position[at]).sum(-1)

    return query, key, value, scale, bias, None


def xlnet(model, m, hidden, layer):
    hidden = hidden.transpose(0, 1)
    query, key, value = (torch.einsum("btd,dhk->bthk", hidden, weight) for weight in (m.q, m.k, m.v))
    d = model.config.d_model
    frequencies = 10000.0 ** (-torch.arange(0, d, 2) / d)

    def bias(b, i, j):
        wave = torch.cat([((i - j) * frequencies).sin(), ((i - j) * frequencies).cos()])
        position = torch.einsum("d,dhk->hk", wave, m.r)
        same = (i < 4) == (j < 4)  # the segments of the test
        return m.scale * (
            (query[b, i] + m.r_r_bias) * position + (query[b, i] + m.r_s_bias) * m.seg_embed[1 - same]
        ).sum(-1)

    return query + m.r_w_bias, key, value, m.scale, bias, None


BY_HAND = {
    "albert": (plain("query", "key", "value", "dense"), {}),
    "bart": (plain("q_proj", "k_proj", "v_proj", "out_proj"), {}),
    "openai-gpt": (gpt, {}),
    "distilbert": (plain("q_lin", "k_lin", "v_lin", "out_lin"), {}),
    "t5": (t5, {}),
    "mpnet": (mpnet, {}),
    "modernbert": (modernbert, {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "deberta": (deberta, {}),
    "deberta-v2": (deberta_v2, {}),
    "deberta-v3": (deberta_v2, {"share_att_key": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm"}),
    "xlnet": (xlnet, {}),
}


def context_by_loops(parts, prefix, lengths, gate=None):
    """Softmax attention to the prefix and the text, one query at a time: "b t h k".

    With a gate "h", of each by itself, the one to the prefix times tanh(gate).
    """
    query, key, value, scale, bias, _ = parts
    output = torch.zeros_like(query)
    keys, values = prefix.permute(0, 1, 3, 2, 4)  # "b p h k"
    for b, length in enumerate(lengths):
        for i in range(length):
            scores = [scale * (query[b, i] * keys[b, p]).sum(-1) for p in range(P)]
            scores += [scale * (query[b, i] * key[b, j]).sum(-1) + bias(b, i, j) for j in range(length)]
            if gate is None:
                weights = torch.stack(scores).softmax(0)
            else:
                apart = torch.stack(scores[:P]).softmax(0), torch.stack(scores[P:]).softmax(0)
                weights = torch.cat([gate.tanh() * apart[0], apart[1]])
            output[b, i] = (weights[..., None] * torch.cat([values[b], value[b, :length]])).sum(0)
    return output


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "gated"),
    [(name, False) for name in BY_HAND]
    + [pytest.param(name, True, marks=[] if name in SOME else pytest.mark.deep) for name in BY_HAND],
)
def test_every_attention_equals_its_familys_formula_in_loops(tiny, batch, prefix, name, gated):
    family, (formula, sizes) = name.replace("v3", "v2"), BY_HAND[name]
    backbone = Backbone(tiny(family, **sizes))
    visitor = Visitor()
    backbone.model(**batch(), prefix=visitor)
    inputs, kv, lengths = batch(), prefix(backbone.spec, P, rows=3), (7, 5, 3)
    gate = torch.randn(3, backbone.spec.heads, generator=torch.Generator().manual_seed(1)) if gated else None
    if family == "xlnet":
        inputs["token_type_ids"] = torch.arange(7).expand(3, -1) // 4
    seen = {"inputs": [], "outputs": []}
    for module in set(visitor.modules):
        module.register_forward_pre_hook(
            lambda m, args, kwargs: seen["inputs"].append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        project = formula(backbone.model, module, torch.zeros(1, 1, 32), 0)[-1]
        if project is None:
            module.register_forward_hook(lambda m, args, output: seen["outputs"].append(output[0]))
        else:
            project.register_forward_pre_hook(lambda m, args: seen["outputs"].append(args[0]))
    backbone(inputs, prompted(backbone, kv, gate=gate))
    assert len(seen["inputs"]) == len(seen["outputs"]) == 3
    for layer, module in enumerate(visitor.modules):
        hidden = seen["inputs"][layer]
        parts = formula(backbone.model, module, hidden, layer)
        expected = context_by_loops(parts, kv[layer], lengths, gate[layer] if gated else None)
        if family == "xlnet":
            expected = module.post_attention(hidden, expected.transpose(0, 1)).transpose(0, 1)
            ours = seen["outputs"][layer].transpose(0, 1)
        else:
            expected, ours = expected.flatten(2), seen["outputs"][layer]
        assert_close(text(ours, inputs), text(expected, inputs), atol=1e-5, rtol=1e-5)


# ---- gradient checkpointing


def gradients(backbone, batch, kv, gate):
    """The loss and the gradients of a prefix and a gate, both fresh leaves."""
    leaves = [kv.clone().requires_grad_(), gate.clone().requires_grad_()]
    inputs = batch()
    loss = text(backbone(inputs, prompted(backbone, leaves[0], gate=leaves[1])), inputs).pow(3).mean()
    loss.backward()
    return [loss.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
@each_family
def test_checkpointing_recomputes_and_changes_no_output_and_no_gradient(
    tiny, batch, prefix, monkeypatch, family, reentrant
):
    sizes = UNSHARED.get(family, {}) if reentrant else {}  # through keys of another layer it has no gradient
    at, read = Prompts.at, []
    monkeypatch.setattr(Prompts, "at", lambda self, *args: read.append(None) or at(self, *args))
    results, reads = [], []
    for checkpointing in (False, True):
        backbone = Backbone(tiny(family, **sizes), checkpointing=checkpointing).requires_grad_(False)
        if checkpointing and reentrant:
            model = backbone.model
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": True})
        read.clear()
        kv, gate = prefix(backbone.spec, P), torch.ones(backbone.spec.layers, backbone.spec.heads)
        results.append(gradients(backbone, batch, kv, gate))
        reads.append(len(read))
    once = backbone.reads_part and not reentrant  # the last layer, with which the backward pass begins
    assert reads == [3, 6 - once], "each layer reads its prefix again in the backward pass"
    assert_close(results[1], results[0], atol=1e-6, rtol=1e-5)


def test_a_family_that_cannot_checkpoint_is_refused(tiny):
    with pytest.raises(InputError, match=r"checkpointing: .*\(model type 'ctrl'\) cannot recompute its activations"):
        Backbone(tiny("ctrl"), checkpointing=True)


# ---- refusals and compilation


@pytest.mark.parametrize(
    ("family", "sizes", "reason"),
    [
        ("albert", {"inner_group_num": 2}, "its 3 layers run 6 attentions in 2 modules"),
        ("deberta", {"talking_head": True}, r"encoder\.layer\.0 to encoder\.layer\.2"),
        ("bloom", {}, r"h\.0 to h\.2"),
    ],
)
def test_a_family_whose_layers_would_not_read_the_prefix_is_refused(tiny, batch, prefix, family, sizes, reason):
    backbone = Backbone(tiny(family, **sizes))
    with pytest.raises(InputError, match=rf"model type '{family}'.*{reason}"):
        backbone(batch(), prompted(backbone, prefix(backbone.spec, P)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [*(pytest.param(f, marks=pytest.mark.deep) for f in (*CACHELESS, "gemma3_text")), "bert", "gpt2"]
)
def test_it_compiles_into_one_graph(tiny, batch, prefix, family):
    backbone = Backbone(tiny(family))
    prompts, inputs = prompted(backbone, prefix(backbone.spec, P)), batch()
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(backbone, fullgraph=True, backend="aot_eager")(inputs, prompts)
        slack = 5e-6 if family in EAGER else 1e-5
        assert_close(text(compiled, inputs), text(backbone(inputs, prompts), inputs), atol=slack, rtol=1e-5)
