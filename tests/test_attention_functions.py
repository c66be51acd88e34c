"""`attention: flex` and `flash`: the same attention through other kernels, or a sentence that says why not."""

import pytest
import torch
from families import FAMILIES, distance, prompted, text
from torch.testing import assert_close

import ptune.backbone.attention
import ptune.backbone.varlen
from ptune.backbone import Backbone
from ptune.backbone.varlen import varlen_forward
from ptune.errors import InputError
from ptune.methods.fine_tuning import FineTuning
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.prompts import Prompts

P = 4
WITHOUT_FLEX = ("gpt2", "openai-gpt", "xlnet", "deberta", "deberta-v2", "mpnet")
BERTS = ("roberta", "electra", "camembert", "xlm-roberta", "ernie")  # whose attention is BERT's
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


# ---- flex


@pytest.fixture
def flex_keys(monkeypatch):
    """The number of keys in each call of flex attention, in order."""
    lengths, function = [], ptune.backbone.attention.flex_attention

    def spy(query, key, *args, **kwargs):
        lengths.append(key.shape[2])
        return function(query, key, *args, **kwargs)

    monkeypatch.setattr(ptune.backbone.attention, "flex_attention", spy)
    return lengths


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in (*WITHOUT_FLEX, *BERTS)])
def test_flex_is_eager_to_float_error(tiny, batch, prefix, flex_keys, family):
    eager, flex = (Backbone(tiny(family), attention=attention) for attention in ("eager", "flex"))
    kv, gate = prefix(eager.spec, P), torch.ones(eager.spec.layers, eager.spec.heads)
    inputs, unpadded = batch(), batch((7, 7))
    flex_keys.clear()
    cases = [(inputs, prompted(eager, kv)), (unpadded, prompted(eager, kv))]
    if family in ("bert", "llama", "t5"):
        cases += [(unpadded, None), (inputs, Prompts(prefix=kv, gate=gate))]
    with torch.no_grad():
        for rows, prompts in cases:
            one, other = (text(backbone(rows, prompts), rows) for backbone in (eager, flex))
            assert_close(other, one, atol=1e-5, rtol=1e-5)
    assert flex_keys == [7 + P] * 6 + ([7] * 3 + [7, P] * 3) * (len(cases) == 4)


@pytest.mark.parametrize("family", WITHOUT_FLEX)
def test_a_family_without_flex_is_refused(tiny, family):
    with pytest.raises(InputError, match=f"attention: 'flex' is not there for model type '{family}'; use sdpa"):
        Backbone(tiny(family), attention="flex")


@pytest.mark.skipif(torch.cuda.is_available(), reason="flex attention trains on a GPU")
@pytest.mark.parametrize("method", [PTuningV2, FineTuning])
def test_training_with_flex_on_the_cpu_is_refused_before_the_first_step(tiny, head, fit, batch, method):
    model = method(backbone=tiny("bert"), head=head("classify"), attention="flex", backbone_dropout=False)
    with pytest.raises(InputError, match=r"attention: flex attention has no backward pass on cpu in torch.* sdpa"):
        fit(model, [batch(labels=torch.tensor([0, 1, 2]))])


def test_a_probe_trains_with_flex_on_the_cpu(tiny, head, fit, batch, flex_keys):
    model = LinearProbe(backbone=tiny("bert"), head=head("classify"), attention="flex")
    assert fit(model, [batch(labels=torch.tensor([0, 1, 2]))]).global_step == 1
    assert flex_keys


def test_a_gradient_through_flex_on_the_cpu_is_refused(tiny, batch, prefix):
    backbone = Backbone(tiny("bert"), attention="flex")
    with pytest.raises(InputError, match="no backward pass on cpu"):
        backbone(batch(), Prompts(prefix=prefix(backbone.spec, P)))


def test_dropout_with_flex_is_refused(tiny, batch):
    backbone = Backbone(tiny("bert"), attention="flex", dropout=True)
    with pytest.raises(
        InputError, match=r"attention: 'flex' has no dropout of attention \(backbone_dropout\); use sdpa"
    ):
        backbone(batch())


# ---- flash: no GPU here, so a stand-in for its kernel, which is what its documentation says


def kernel(q, k, v, mask, query_length, is_causal, softmax_scale, sliding_window=None, **kwargs):
    """Flash attention 2 of "b t h k" written out: the causal mask is aligned to the lower right, `mask` "b s"."""
    t, s = q.shape[1], k.shape[1]
    assert t == query_length
    k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], dim=2) for x in (k, v))
    behind = torch.arange(t)[:, None] + s - t - torch.arange(s)
    seen = torch.ones(t, s, dtype=torch.bool) if not is_causal else behind >= 0
    if sliding_window is not None:
        seen = seen & (behind.abs() < sliding_window)
    seen = seen[None, None] if mask is None else seen & mask.bool()[:, None, None]
    scores = torch.einsum("bthk,bshk->bhts", q, k) * softmax_scale
    weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1)
    return torch.einsum("bhts,bshk->bthk", weights, v)


def varlen(q, k, v, q_ends, k_ends, most_q, most_k, *, scale, window_size, enable_gqa):
    """Torch's kernel for packed texts "n h k" written out, text by text; `window_size` is that of its documentation."""
    assert q_ends.dtype == k_ends.dtype == torch.int32
    assert (q_ends[-1], k_ends[-1]) == (len(q), len(k)), "no row of the output is left unwritten"
    assert enable_gqa == (q.shape[1] != k.shape[1])
    (left, right), found = window_size, []
    for i in range(len(q_ends) - 1):
        one, keys, values = q[q_ends[i] : q_ends[i + 1]], *(x[k_ends[i] : k_ends[i + 1]] for x in (k, v))
        t, s = len(one), len(keys)
        assert t <= most_q
        assert s <= most_k
        keys, values = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (keys, values))
        behind = torch.arange(t)[:, None] + s - t - torch.arange(s)
        seen = (behind <= (left if left >= 0 else s)) & (-behind <= (right if right >= 0 else t))
        scores = torch.einsum("thk,shk->hts", one, keys) * scale
        found.append(torch.einsum("hts,shk->thk", scores.masked_fill(~seen, -torch.inf).softmax(-1), values))
    return torch.cat(found)


@pytest.fixture(params=["flash-attn", "torch"])
def flash(request, monkeypatch, tiny):
    """Builds a backbone in bf16 that believes in a GPU and runs the stand-in of flash-attn's or torch's kernel."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ptune.backbone.attention, "FLASH_ATTN", request.param == "flash-attn")
    monkeypatch.setattr(ptune.backbone.attention, "flash_attention_forward", kernel)
    monkeypatch.setattr(ptune.backbone.varlen, "varlen_attn", varlen)
    return lambda family, **options: Backbone(tiny(family, **options), attention="flash", dtype="bf16")


@pytest.fixture
def packed(monkeypatch, tiny):
    """Builds backbones of a family in fp32, with SDPA and with torch's kernel for packed texts, of the same weights."""
    monkeypatch.setattr(ptune.backbone.varlen, "varlen_attn", varlen)

    def forward(q, k, v, *args, query_length, **kwargs):
        return varlen_forward(q.double(), k.double(), v.double(), *args, **kwargs).to(q.dtype)

    monkeypatch.setattr(ptune.backbone.attention, "flash_attention_forward", forward)
    monkeypatch.setattr(ptune.backbone.attention, "FLASH_ATTN", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    return lambda family, **options: [Backbone(tiny(family, **options), attention=name) for name in ("sdpa", "flash")]


@pytest.mark.parametrize(
    ("family", "options"),
    [("bert", {}), ("gpt2", {}), ("llama", {}), ("opt", {}), ("bart", {}), ("mistral", {"sliding_window": 20})],
)
def test_packed_texts_have_the_same_hidden_states_and_gradients(batch, prefix, packed, family, options):
    plain, ours = packed(family, **options)
    start = prefix(plain.spec, P)
    for inputs in (batch(), batch((7, 7)), batch(side="left")):
        found = []
        for backbone in (plain, ours):
            kv = start.clone().requires_grad_()
            for gate in (None, torch.ones(backbone.spec.layers, backbone.spec.heads)):
                hidden = text(backbone(inputs, Prompts(prefix=kv, gate=gate)), inputs)
                (slope,) = torch.autograd.grad(hidden.pow(2).sum(), kv)
                found.append((hidden, slope))
        for expected, other in zip(found[:2], found[2:], strict=True):
            assert_close(other, expected, atol=1e-5, rtol=1e-4)


def test_what_torchs_kernel_lacks_is_refused(tiny, batch, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ptune.backbone.attention, "FLASH_ATTN", False)
    backbone = Backbone(tiny("bert"), attention="flash", dtype="bf16", dropout=True)
    with pytest.raises(
        InputError, match=r"'flash' has no dropout of attention \(backbone_dropout\) without the package"
    ):
        backbone(batch())


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama", "qwen3", "opt", "distilbert", "bart"])
def test_flash_sees_the_prefix_and_the_text(tiny, batch, prefix, flash, family):
    full, plain, ours = Backbone(tiny(family)), Backbone(tiny(family), dtype="bf16"), flash(family)
    kv, gate = prefix(plain.spec, P), torch.ones(plain.spec.layers, plain.spec.heads)
    with torch.no_grad():
        for inputs in (batch(), batch((7, 7)), batch(side="left")):
            for prompts in (None, Prompts(prefix=kv), Prompts(prefix=kv, gate=gate)):
                exact, expected, found = (text(each(inputs, prompts), inputs) for each in (full, plain, ours))
                assert distance(found, exact) < 3 * distance(expected, exact) + 1e-3, "bf16 alone, on this machine"
                assert distance(expected, exact) < 0.03


def test_packed_texts_with_flash_are_refused(batch, flash):
    with pytest.raises(InputError, match="give each text a row of its own"):
        flash("llama")(batch() | {"position_ids": torch.arange(7).expand(3, -1)})


def test_flash_with_a_window_that_would_hide_the_prefix_is_refused(batch, prefix, flash):
    backbone = flash("mistral", sliding_window=3)
    with pytest.raises(InputError, match="attention: 'flash' would hide the prefix behind the sliding window of 3"):
        backbone(batch(), Prompts(prefix=prefix(backbone.spec, P)))


def test_flash_in_fp32_is_refused(tiny, batch, flash):
    with pytest.raises(InputError, match="attention: 'flash' needs 16 bits; use backbone_dtype: bf16"):
        Backbone(tiny("bert"), attention="flash")(batch())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_flash_without_a_gpu_is_refused(tiny):
    with pytest.raises(InputError, match="attention: 'flash' needs an NVIDIA GPU, and this machine shows none"):
        Backbone(tiny("bert"), attention="flash", dtype="bf16")


def test_flash_without_a_kernel_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ptune.backbone.attention, "FLASH_ATTN", False)
    monkeypatch.setattr(ptune.backbone.attention, "varlen_attn", None)
    with pytest.raises(InputError, match=r"attention: 'flash' needs torch 2\.10 or the package flash-attn"):
        Backbone(tiny("bert"), attention="flash", dtype="bf16")
