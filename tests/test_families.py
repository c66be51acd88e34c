"""What every family does with every method and head, and random shapes of models, prompts and batches."""

import pytest
import torch
from families import FAMILIES, SOME, UNCUT, text
from hypothesis import given, settings
from hypothesis import strategies as st
from methods_table import TABLE, names
from torch.testing import assert_close

from ptune.backbone import Backbone
from ptune.backbones import tuned
from ptune.errors import InputError
from ptune.methods.fine_tuning import FineTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning
from ptune.prompts import Prompts

P = 3
OFTEN = ("prefix", "soft prompt", "encoded prompt", "fine-tuning")
"""Methods that are tried on every family each time; others on some, and on all in the deep tier."""
PROMPTED = [
    pytest.param(method, family, marks=[] if method in OFTEN or family in SOME else pytest.mark.deep)
    for method in [*names(prompt=True, variants=False), "fine-tuning"]
    for family in FAMILIES
    if method != "late prompt" or family not in UNCUT
]


@pytest.mark.parametrize(("method", "family"), PROMPTED)
def test_with_every_head_all_that_is_declared_gets_a_gradient(tiny, family, method):
    case = TABLE[method]
    assert tuned(case.method, tiny(family), **case.given(P)) == "yes"


@pytest.mark.parametrize(("method", "family"), [pair for pair in PROMPTED if pair.values[0] != "fine-tuning"])
def test_saved_prompts_score_bit_for_bit_in_another_model(tiny, head, batch, tmp_path, family, method):
    case = TABLE[method]
    slots = torch.zeros(3, 7, dtype=torch.bool)
    slots[:, :P] = True
    inputs, found = batch((7, 6, 6), slots=slots), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = case.method(backbone=tiny(family), head=head("classify"), **case.given(P))
        model.configure_model()
        model.eval()
        with torch.no_grad():
            if seed == 0:
                model.save_prompts(tmp_path / "prompts")
            else:
                found.append(model(inputs))
                model.load_prompts(tmp_path / "prompts")
            found.append(model(inputs))
    saved, other, loaded = found
    assert torch.equal(loaded, saved)
    assert not torch.equal(other, saved)


# ---- keys and values of other sizes


def test_a_family_whose_values_are_of_another_size_than_its_keys_takes_no_prefix_and_says_so(tiny, head):
    path = tiny("deepseek_v2")
    assert tuned(FineTuning, path) == "yes"
    model = PTuningV2(backbone=path, head=head("classify"))
    with pytest.raises(InputError, match=r"'deepseek_v2'.* keys have \[\(4, 12\)\] and its values \[\(4, 8\)\]"):
        model.configure_model()


# ---- how a text is pooled


@pytest.mark.filterwarnings("ignore:.*grouped_mm")
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("family", ["mixtral", "bloom", "gpt2"])
def test_a_causal_model_is_pooled_at_its_last_token_in_every_precision(tiny, family, dtype):
    if dtype == "int8":
        pytest.importorskip("bitsandbytes")
    sizes = {"num_key_value_heads": 2, "num_local_experts": 4} if family == "mixtral" else {}
    backbone = Backbone(tiny(family, **sizes), dtype=dtype)
    assert backbone.pooling == "last"
    if family == "mixtral" and dtype == "fp32":
        assert tuned(PromptTuning, tiny(family, **sizes), length=P, init="random") == "yes"


# ---- random shapes


@pytest.fixture(scope="session")
def loaded(tiny):
    """Backbones of random sizes, each loaded once: loaded("llama", layers, heads, kv_heads)."""
    backbones = {}

    def load(family, layers, heads, groups):
        key = (family, layers, heads, groups if family == "llama" else 1)
        if key not in backbones:
            t5 = {"num_layers": layers, "num_heads": heads, "d_kv": 8}
            sizes = {"num_hidden_layers": layers, "num_attention_heads": heads}
            sizes |= {"num_key_value_heads": heads // key[3]} if family == "llama" else {}
            backbones[key] = Backbone(tiny(family, **(t5 if family == "t5" else sizes)))
        return backbones[key]

    return load


cases = given(
    family=st.sampled_from(["bert", "llama", "t5", "distilbert"]),
    layers=st.integers(1, 3),
    heads=st.sampled_from([2, 4]),
    groups=st.sampled_from([1, 2]),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    p=st.integers(1, 6),
    own=st.booleans(),
    seed=st.integers(0, 99),
)
hundred = settings(max_examples=100, deadline=None, database=None, derandomize=True)
close = {"atol": 2e-5, "rtol": 2e-5}


def check_rows(backbone, inputs, prompts_for):
    """The hidden states of a padded batch, which must be those of its texts one by one."""
    together = backbone(inputs, prompts_for(slice(None)))
    for row, length in enumerate(inputs["attention_mask"].sum(1)):
        alone = {key: value[row : row + 1, :length] for key, value in inputs.items() if key != "attention_mask"}
        assert_close(together[row, :length], backbone(alone, prompts_for(slice(row, row + 1)))[0], **close)
    return text(together, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("gated", [False, True], ids=["prefix", "gated prefix"])
def test_a_prefix_of_any_shape_is_a_set_seen_by_every_text(loaded, batch, prefix, gated):
    @hundred
    @cases
    def check(family, layers, heads, groups, lengths, p, own, seed):
        backbone = loaded(family, layers, heads, groups)
        inputs = batch(lengths, seed=seed)
        kv = prefix(backbone.spec, p, rows=len(lengths) if own else 1, seed=seed)
        gate = torch.ones(layers, heads) if gated else None

        def prompts_for(rows, kv=kv, gate=gate):
            return Prompts(prefix=kv[:, :, rows] if own else kv, gate=gate)

        with torch.no_grad():
            found = check_rows(backbone, inputs, prompts_for)
            order = torch.randperm(p, generator=torch.Generator().manual_seed(seed))
            permuted = backbone(inputs, prompts_for(slice(None), kv[..., order, :]))
            assert_close(text(permuted, inputs), found, **close)
            plain = text(backbone(inputs), inputs)
            assert (found - plain).abs().max() > 1e-4
            if gated:
                closed = backbone(inputs, prompts_for(slice(None), gate=torch.zeros(layers, heads)))
                assert_close(text(closed, inputs), plain, **close)

    check()


@pytest.mark.slow
def test_a_soft_prompt_of_any_shape_is_as_the_tokens_whose_embeddings_it_holds(loaded, batch):
    @hundred
    @cases
    def check(family, layers, heads, groups, lengths, p, own, seed):
        backbone = loaded(family, layers, heads, groups)
        n = len(lengths)
        tokens = torch.randint(5, 60, (n if own else 1, p), generator=torch.Generator().manual_seed(seed))
        inputs = batch([1 + p + length for length in lengths], seed=seed)
        slots = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        slots[:, 1 : 1 + p] = True
        words = inputs | {"input_ids": inputs["input_ids"].masked_scatter(slots, tokens.expand(n, p))}
        with torch.no_grad():
            vectors = backbone.embed(tokens)
            found = check_rows(
                backbone, inputs | {"slots": slots}, lambda rows: Prompts(embeds=vectors[rows] if own else vectors)
            )
            assert_close(found, text(backbone(words), words), **close)

    check()
