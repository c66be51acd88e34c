"""What a prefix does: attention by hand, PEFT's prefix, the gate, some layers only."""

import pytest
import torch
from families import EAGER, distance, text
from peft import PrefixTuningConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import AutoModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ptune.backbone import Backbone
from ptune.prompts import Prompts
from ptune.tuning.prefix import PrefixEncoder

P = 4


class Core(nn.Module):
    """What an attention function reads from the module that calls it."""

    def __init__(self, causal, groups):
        super().__init__()
        self.is_causal = causal
        self.num_key_value_groups = groups
        self.prefix_layer = 0


def by_hand(query, key, value, visible, bias=0.0):
    """Softmax attention "b h t k", written down: `visible` "t s" or "b 1 t s"."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5 + bias
    return (scores.masked_fill(~visible, -torch.inf).softmax(-1) @ value).transpose(1, 2)


@pytest.fixture(params=["bidirectional", "causal", "boolean", "additive"])
def masked(request):
    """Module's causality, the mask the function is given, and what a text token sees of the text: b 2, t 5."""
    triangle = torch.ones(5, 5).tril().bool()
    padded = triangle & (torch.arange(5) < torch.tensor([[5], [3]]))[:, None, None]
    return {
        "bidirectional": (False, None, torch.ones(5, 5).bool()),
        "causal": (True, None, triangle),
        "boolean": (True, padded, padded),
        "additive": (True, torch.zeros(padded.shape).masked_fill(~padded, -torch.inf), padded),
    }[request.param]


@pytest.fixture(params=[1, 2], ids=["every head its keys", "grouped"])
def tensors(request):
    """Query, key, value, prefix and module arguments: b 2, t 5, k 8."""
    generator = torch.Generator().manual_seed(0)
    heads = 4 // request.param
    query, key, value = (torch.randn(2, h, 5, 8, generator=generator) for h in (4, heads, heads))
    return query, key, value, torch.randn(1, 2, 2, heads, P, 8, generator=generator), request.param


@pytest.mark.parametrize("biased", [False, True], ids=["", "position bias"])
def test_every_token_sees_the_whole_prefix_and_what_it_saw_of_the_text(masked, tensors, biased):
    causal, mask, visible = masked
    query, key, value, prefix, groups = tensors
    bias = torch.randn(1, 4, 5, 5) if biased else None
    output, _ = ALL_ATTENTION_FUNCTIONS["ptune_sdpa"](
        Core(causal, groups), query, key, value, mask, prefix=Prompts(prefix=prefix), position_bias=bias
    )
    keys, values = prefix[0]
    expected = by_hand(
        query,
        torch.cat([keys, key], 2),
        torch.cat([values, value], 2),
        F.pad(visible, (P, 0), value=True),
        F.pad(bias, (P, 0)) if biased else 0.0,
    )
    assert_close(output, expected)


def test_a_gate_adds_attention_to_the_prefix_normalised_by_itself(masked, tensors):
    causal, mask, visible = masked
    query, key, value, prefix, groups = tensors
    gate = torch.tensor([[0.0, 0.3, -1.0, 5.0]])
    output, _ = ALL_ATTENTION_FUNCTIONS["ptune_sdpa"](
        Core(causal, groups), query, key, value, mask, prefix=Prompts(prefix=prefix, gate=gate)
    )
    expected = by_hand(query, key, value, visible)
    expected += gate[0].tanh()[:, None] * by_hand(query, *prefix[0], torch.ones(5, P).bool())
    assert_close(output, expected)


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning")  # PEFT passes it
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "gpt2"])
def test_the_same_table_in_peft_gives_the_same_hidden_states(tiny, batch, family, attention):
    backbone = Backbone(tiny(family), attention=attention)
    encoder = PrefixEncoder(P, backbone.spec.kv_sizes)
    nn.init.normal_(encoder.flat)
    theirs = get_peft_model(
        AutoModel.from_pretrained(tiny(family), attn_implementation=attention),
        PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=P),
    ).eval()
    theirs.prompt_encoder["default"].embedding.weight.data.copy_(encoder.flat)
    inputs = batch()
    with torch.no_grad():
        expected = theirs(**inputs).last_hidden_state
        ours = backbone(inputs, Prompts(prefix=encoder(), shift=P))
    assert_close(text(ours, inputs), text(expected, inputs), atol=1e-5, rtol=0)


# ---- what a prefix does


@pytest.mark.parametrize("family", [*EAGER, "gemma2"])
def test_a_zero_prefix_is_not_the_identity(tiny, batch, prefix, family):
    backbone = Backbone(tiny(family))
    inputs = batch()
    with torch.no_grad():
        moved = backbone(inputs, Prompts(prefix=prefix(backbone.spec, P) * 0)) - backbone(inputs)
    assert text(moved, inputs).abs().max() > 0.01


@pytest.mark.parametrize("family", ["bert", "roberta", "opt", "gpt2"])
def test_a_shift_moves_the_positions_of_the_text_and_nothing_else(tiny, batch, family):
    backbone = Backbone(tiny(family))
    inputs = batch()
    positions = backbone.traits.first_position + torch.arange(P, P + 7)[None]
    with torch.no_grad():
        assert torch.equal(
            backbone(inputs, Prompts(shift=P)), backbone.model(**inputs, position_ids=positions).last_hidden_state
        )


@pytest.mark.parametrize(("family", "sizes"), [("mistral", {}), ("modernbert", {"layer_types": ["sliding_attention"]})])
def test_a_sliding_window_hides_text_but_never_the_prefix(tiny, batch, prefix, family, sizes):
    backbone = Backbone(tiny(family, num_hidden_layers=1, **sizes))
    inputs = batch(lengths=(12,))
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][0, 0] = 5
    kv = prefix(backbone.spec, P).requires_grad_()
    output = backbone(inputs, Prompts(prefix=kv))
    moved = (backbone(other, Prompts(prefix=kv)) - output).detach().abs().amax(2)[0]
    assert moved[0] > 0.01
    assert moved[-1] == 0, "the first token is out of the last one's window"
    output[0, -1].pow(3).sum().backward()
    assert (kv.grad.abs().amax((0, 2, 3, 5)) > 1e-4).all(), "every vector of the prefix reaches the last token"


# ---- the gate


@pytest.mark.parametrize("opened", [False, True])
def test_at_a_zero_gate_the_gate_has_gradient_and_the_prefix_gets_it_once_the_gate_moved(tiny, batch, prefix, opened):
    backbone = Backbone(tiny("bert"))
    kv = prefix(backbone.spec, P).requires_grad_()
    gate = torch.full((backbone.spec.layers, backbone.spec.heads), 0.1 if opened else 0.0, requires_grad=True)
    backbone(batch(), Prompts(prefix=kv, gate=gate)).pow(3).sum().backward()
    assert (gate.grad != 0).all()
    assert (kv.grad.abs().amax((2, 3, 4, 5)) > 1e-5).all() if opened else (kv.grad == 0).all()


# ---- some layers only


@pytest.mark.parametrize("layers", [(0,), (1, 2), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2"])
def test_layers_without_a_prefix_attend_to_the_text_alone(tiny, batch, prefix, sdpa_keys, family, layers):
    backbone = Backbone(tiny(family))
    sdpa_keys.clear()
    backbone(batch(), Prompts(prefix=prefix(backbone.spec, P, layers=len(layers)), layers=layers))
    assert sdpa_keys == [7 + P if layer in layers else 7 for layer in range(3)]


def test_each_row_of_a_prefix_goes_to_the_layer_it_is_named_for(tiny, batch, prefix):
    backbone = Backbone(tiny("bert"))
    kv = prefix(backbone.spec, P)
    inputs = batch()
    with torch.no_grad():
        swapped = backbone(inputs, Prompts(prefix=kv[[2, 0, 1]], layers=(2, 0, 1)))
        assert torch.equal(swapped, backbone(inputs, Prompts(prefix=kv)))


@pytest.mark.parametrize("lowest", [0, 1, 2])
def test_no_gradient_is_computed_below_the_lowest_prompted_layer(tiny, batch, prefix, lowest):
    backbone = Backbone(tiny("bert")).requires_grad_(False)
    tracked = []
    for layer in backbone.model.encoder.layer:
        layer.register_forward_hook(lambda module, args, output: tracked.append(output.requires_grad))
    layers = tuple(range(lowest, 3))
    kv = prefix(backbone.spec, P, layers=len(layers)).requires_grad_()
    backbone(batch(), Prompts(prefix=kv, layers=layers)).pow(3).sum().backward()
    assert tracked == [layer >= lowest for layer in range(3)]
    assert (kv.grad.abs().amax((2, 3, 4, 5)) > 1e-4).all()


# ---- how it runs


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["autocast", "bf16 weights"])
def test_in_bf16_the_prefix_is_cast_to_the_dtype_of_the_keys(tiny, batch, prefix, weights):
    backbone = Backbone(tiny("bert"))
    kv, inputs = prefix(backbone.spec, P), batch()
    cases = (None, Prompts(prefix=kv), Prompts(prefix=kv, gate=torch.ones(3, 4)))
    with torch.no_grad():
        exact = [text(backbone(inputs, prompts), inputs) for prompts in cases]
        with torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32):
            backbone.to(weights)
            rounded = [text(backbone(inputs, prompts), inputs).float() for prompts in cases]
    plain, *prompted = (distance(one, other) for one, other in zip(rounded, exact, strict=True))
    assert plain < 0.1
    assert max(prompted) < 3 * plain + 1e-3
