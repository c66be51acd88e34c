"""A backbone in one file, as llama.cpp keeps it."""

import os

import pytest
import runs
import torch
from transformers import AutoModelForCausalLM

from ptune.backbone import Backbone
from ptune.backbone.pretrained import describe, origin
from ptune.backbone.tokenizer import load
from ptune.errors import InputError
from ptune.run.identity import contents

gguf = pytest.importorskip("gguf")
LETTERS = "abcdefghijklmnopqrstuvwxyz ĠĊ.,'?![]0123456789"
WIDTH, HEADS, KV, LAYERS, INNER = 32, 4, 2, 2, 48


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A Llama of 2 layers with random weights, and a tokenizer that spells letter by letter."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokens = ["<s>", "</s>", *sorted(set(LETTERS)), "th", "the"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    torch.manual_seed(0)
    small = WIDTH // HEADS * KV
    shapes = {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        parts = {"attn_q": WIDTH, "attn_k": small, "attn_v": small, "attn_output": WIDTH}
        shapes |= {f"blk.{layer}.{name}": (size, WIDTH) for name, size in parts.items()}
        shapes |= {f"blk.{layer}.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{layer}.{name}": (INNER, WIDTH) for name in ("ffn_gate", "ffn_up")}
        shapes[f"blk.{layer}.ffn_down"] = (WIDTH, INNER)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", torch.randn(shape).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_sizes_tokenizer_and_hidden_states_are_those_of_transformers(file):
    spec, tokenizer = describe(str(file)), load(str(file))
    assert (spec.width, spec.layers, spec.kv_sizes, spec.lm) == (WIDTH, LAYERS, ((KV, WIDTH // HEADS),) * 2, "causal")
    batch = tokenizer(["the cat", "a the"], padding=True, return_tensors="pt")
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name).eval()
    with torch.no_grad():
        ours, expected = Backbone(str(file))(batch), theirs.model(**batch).last_hidden_state
    kept = batch["attention_mask"].bool()
    torch.testing.assert_close(ours[kept], expected[kept])


def test_its_config_and_its_tokenizer_are_read_once_until_it_is_written(file, tmp_path, monkeypatch):
    own, opened, reader = tmp_path / "own.gguf", [], gguf.GGUFReader
    own.write_bytes(file.read_bytes())
    monkeypatch.setattr(gguf, "GGUFReader", lambda path: opened.append(path) or reader(path))
    first, tokenizer = describe(str(own)), load(str(own))
    once = len(opened)
    tokenizer.pad_token = "<s>"
    assert (describe(str(own)).config.to_dict(), load(str(own)).pad_token) == (first.config.to_dict(), "</s>")
    assert len(opened) == once > 0
    os.utime(own, ns=(0, 0))
    describe(str(own))
    assert len(opened) > once


@pytest.mark.parametrize("method", ["PTuningV2", "PromptTuning", "FineTuning"])
def test_it_is_trained_and_prompted_as_any_other(file, method, tmp_path):
    result = runs.fit(tmp_path / "run", method, "toy/single", model__backbone=file, trainer__max_steps=2)
    assert result["steps"] == 2
    assert result["backbone"] == str(file)


def test_a_file_that_is_moved_is_the_same_backbone_and_another_one_is_not(file, tmp_path):
    moved, other = tmp_path / "moved.gguf", tmp_path / "other.gguf"
    moved.write_bytes(file.read_bytes())
    other.write_bytes(file.read_bytes() + b"\0")
    assert contents(file) == contents(moved) != contents(other)


def test_a_file_of_the_hub_is_named_behind_its_repository():
    assert origin("owner/model/deep/x.gguf") == {
        "pretrained_model_name_or_path": "owner/model",
        "gguf_file": "deep/x.gguf",
    }


def test_what_is_no_such_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        describe(str(tmp_path / "absent.gguf"))
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"junk")
    with pytest.raises(InputError, match=r"the file cannot be read .*magic"):
        describe(str(junk))
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "unheard_of")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"the file cannot be read .*unheard_of"):
        describe(str(tmp_path / "other.gguf"))
