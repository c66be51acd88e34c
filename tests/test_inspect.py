"""What is said of a trained prompt: nearest tokens, norms, attention; and a picture that overwrites none."""

import sys
from dataclasses import replace

import pytest
import runs
import torch
from torch.testing import assert_close
from transformers import AutoModel

from ptune.errors import InputError
from ptune.inspect import look, main, picture, tables
from ptune.methods.late_prompt_tuning import LatePromptTuning
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning

P = 2
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def build(tiny, head):
    def make(method=PTuningV2, family="bert", **arguments):
        torch.manual_seed(0)
        common = {"backbone": tiny(family), "head": head("classify"), "attention": "eager"}
        model = method(**common | arguments)
        model.configure_model()
        for value in model.trained().values():
            value.data.normal_()
        return model.eval()

    return make


@pytest.fixture
def batch(batch):
    """Texts with P slots behind the first token."""
    slots = torch.arange(7).expand(3, -1)
    return batch() | {"slots": (slots > 0) & (slots <= P)}


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_attention_to_a_prefix_is_that_of_transformers_cache_route(build, batch, kv_cache, family):
    model = build(family=family, length=4, shift_positions=True)
    found = look(model, batch)
    theirs = AutoModel.from_pretrained(model.hparams["backbone"], attn_implementation="eager").eval()
    cache = kv_cache(theirs, torch.stack(model.prompt.encoder()).detach(), rows=3)
    mask = batch["attention_mask"]
    wide = torch.cat([torch.ones(3, 4, dtype=torch.long), mask], dim=1)
    with torch.no_grad():
        weights = theirs(batch["input_ids"], attention_mask=wide, output_attentions=True, **cache).attentions
    for layer in range(3):
        expected = weights[layer].mean(1)[..., :4][mask.bool()].mean(0)
        assert_close(found.attention[layer], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_attention_to_slots_is_that_of_the_text_to_these_tokens(build, batch, family):
    model = build(PromptTuning, family, length=P)
    found = look(model, batch)
    theirs = AutoModel.from_pretrained(model.hparams["backbone"], attn_implementation="eager").eval()
    words = theirs.get_input_embeddings()(batch["input_ids"]).detach()
    words[:, 1 : 1 + P] = model.prompt.vectors.detach()
    mask = batch["attention_mask"]
    with torch.no_grad():
        weights = theirs(inputs_embeds=words, attention_mask=mask, output_attentions=True).attentions
    text = mask.bool() & ~batch["slots"]
    for layer in range(3):
        expected = weights[layer].mean(1)[..., 1 : 1 + P][text].mean(0)
        assert_close(found.attention[layer], expected, rtol=1e-4, atol=1e-5)


def test_an_even_spread_counts_what_a_token_sees(build, batch):
    lengths = batch["attention_mask"].sum(1).tolist()
    seen = {
        "bert": [4 / (4 + length) for length in lengths for _ in range(length)],
        "gpt2": [4 / (4 + i + 1) for length in lengths for i in range(length)],
    }
    for family, shares in seen.items():
        even = look(build(family=family, length=4), batch).even
        assert_close(even, torch.full((3,), sum(shares) / len(shares)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", [PTuningV2, PromptTuning])
def test_a_run_on_a_backbone_of_16_bits_is_looked_at_in_32(build, batch, method):
    full, half = (look(build(method, length=P, backbone_dtype=dtype), batch) for dtype in ("fp32", "bf16"))
    assert half.attention.dtype == torch.float32
    assert_close(half.attention, full.attention, atol=0.02, rtol=0.1)
    assert bool(half.tokens) == bool(full.tokens) == (method is PromptTuning)
    if method is PTuningV2:
        assert_close(half.text_norms, full.text_norms, atol=0.05, rtol=0.05)


def test_norms_are_means_over_vectors_by_layer(build, batch):
    model = build(length=4, layers=[0, 2])
    found = look(model, batch)
    table = model.prompt.encoder.flat.detach().view(4, 2, 2, 32)  # "p l two (h k)"
    assert_close(found.norms, table.norm(dim=-1).mean(0))
    own = model.backbone.keys_values(batch["input_ids"][:1])
    assert_close(found.text_norms, torch.stack(own).transpose(3, 4).flatten(4).norm(dim=-1).mean((2, 3))[[0, 2]])
    assert found.layers == (0, 2)
    assert "| 2 | " in tables(found, "x")
    assert "| 1 | " not in tables(found, "x")


def test_the_nearest_tokens_are_those_the_vectors_were_made_of(build, batch):
    model = build(PromptTuning, length=P)
    words = model.backbone.model.get_input_embeddings().weight.detach()
    model.prompt.vectors.data.copy_(torch.stack([words[10], words[20] * 50]))
    (first, second) = look(model, batch).tokens
    assert (first[0][0], first[1][0], second[0][0]) == ("w6", "w6", "w16")
    assert second[1][0] == f"w{(words - words[20] * 50).norm(dim=1).argmin() - 4}"
    assert "`w6`" in tables(look(model, batch), "x")


def test_vectors_that_are_no_word_embeddings_have_no_nearest_tokens(build, batch):
    found = look(build(LatePromptTuning, length=P), batch)
    assert len(found.vectors) == P
    assert "| vector | norm |\n" in tables(found, "x")


@pytest.mark.parametrize(
    ("family", "arguments"), [("bert", {"init": "identity"}), ("xlnet", {}), ("deberta", {}), ("albert", {})]
)
def test_attention_that_is_not_available_is_left_out_with_the_reason(build, batch, family, arguments):
    found = look(build(family=family, **arguments), batch)
    assert found.attention is None
    assert "There are no attention weights" in tables(found, "x")
    assert len(picture(found, "x").axes) == 2


@pytest.mark.parametrize("method", [PTuningV2, PromptTuning])
def test_the_picture_shows_the_even_spread_vectors_on_a_scale_of_their_own_and_legends_beside_the_curves(
    build, batch, method
):
    found = look(build(method, length=P), batch)
    shares, vectors, norms, _ = picture(found, "x").axes
    curves = {line.get_label(): line.get_ydata() for line in shares.get_lines()}
    assert_close(torch.tensor(curves["of the text"]).float(), 100 * found.attention.sum(1))
    assert_close(torch.tensor(curves["if it were even"]).float(), 100 * found.even)
    (image,) = vectors.get_images()
    assert_close(torch.as_tensor(image.get_array().data).mean(1), torch.ones(3))
    low, high = image.get_clim()
    assert low + high == pytest.approx(2)
    assert high - 1 == pytest.approx(max(0.01, float(abs(image.get_array() - 1).max())))
    if method is PTuningV2:
        assert norms.get_yscale() == "log", "the text's norms are many times the prompt's"
        assert len(norms.get_lines()) == len(norms.get_legend().get_texts()) == 4
    figure = shares.figure
    figure.canvas.draw()
    for axes in (shares, norms):
        if axes.get_legend():
            assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0, "below the axes"


def test_control_characters_of_tokens_are_escaped(build, batch):
    found = look(build(PromptTuning, length=P), batch)
    near = (["a\nb", "\x00", "\u200b"], ["x|y", "`", "Ġé"])
    text = tables(replace(found, tokens=[near] * P), "x")
    assert r"| `a\nb` `\x00` `\u200b` | `x\|y` `'` `Ġé` |" in text


def test_a_method_without_prompts_is_refused(build, batch):
    with pytest.raises(InputError, match="model: LinearProbe has no prompt to inspect"):
        look(build(LinearProbe), batch)


# ---- the command


@pytest.fixture(scope="module", params=["PTuningV2", "PTuning"])
def finished_run(request, tmp_path_factory):
    """A finished run, whose folder a test may write a picture into."""
    run_dir = tmp_path_factory.mktemp("inspected") / "run"
    options = {"PTuningV2": {"model__mlp": 8}, "PTuning": {}}[request.param]
    runs.fit(run_dir, request.param, model__length=3, trainer__max_epochs=1, **options)
    return run_dir


def outcome(words, capsys):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, [text for text in err.splitlines() if text.startswith("error: ")]


def test_the_command_prints_tables_and_draws_a_picture_that_it_never_overwrites(finished_run, capsys):
    before = runs.contents(finished_run)
    code, out, _ = outcome([finished_run], capsys)
    assert code == 0
    assert out.startswith("# PTuning")
    assert "| attention to the prompt | if even |" in out
    assert f"Picture: {finished_run}/inspect.png" in out
    after = runs.contents(finished_run)
    assert after.pop("inspect.png").startswith(PNG)
    assert after == before
    code, out, err = outcome([finished_run], capsys)
    assert (code, out) == (2, "")
    assert err == [f"error: {finished_run}/inspect.png: exists; move it away, or use --no-picture."]
    _, _, err = outcome([finished_run, "--no-picture", "--data.path", "nowhere"], capsys)
    assert err[0].startswith("error: --data.path nowhere: does not exist")
    code, out, _ = outcome([finished_run, "--no-picture"], capsys)
    assert code == 0
    assert "Picture" not in out
    (finished_run / "inspect.png").unlink()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: run_dir; usage: python -m ptune.inspect"),
        (["missing"], "missing: does not exist; give the directory of a finished run"),
        (["missing", "--picture"], "option --picture does not exist; "),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(capsys, words, message):
    code, out, err = outcome(words, capsys)
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert message in err[0]


def test_without_matplotlib_the_extra_is_named_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = outcome([tmp_path], capsys)
    assert code == 2
    sentence = "error: package 'matplotlib' is not installed; pip install \"ptune[plot]\", or use --no-picture"
    assert err == [f"{sentence} for the tables alone."]


def test_a_run_whose_backbone_is_gone_is_refused(tmp_path, capsys):
    runs.fit(tmp_path / "run", trainer__max_epochs=1)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(runs.bert(), "/missing/bert"))
    code, _, err = outcome([tmp_path / "run", "--no-picture"], capsys)
    assert code == 2
    assert len(err) == 1
    assert "'/missing/bert'" in err[0]
