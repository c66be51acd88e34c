"""Prompt tuning: vectors in the slots of the input, wherever a task's labels point."""

import lightning as L
import pytest
import runs
import torch
from torch.testing import assert_close

from ptune.backbone.tokenizer import load
from ptune.data.choice import MultipleChoice
from ptune.data.classification import Classification
from ptune.data.qa import SpanQA
from ptune.data.tagging import Tagging
from ptune.errors import InputError
from ptune.methods.prompt_tuning import PromptTuning
from ptune.tasks.spec import HeadSpec

P = 3
DATA = {"toy/pair": Classification, "toy/choice": MultipleChoice, "toy/qa": SpanQA, "toy/tagging": Tagging}


def prepared(name, slots=P):
    data = DATA[name](name, backbone=runs.bert(), path=runs.data(name), batch_size=4, max_length=48, slots=slots)
    data.setup("fit")
    return data


def built(head, **arguments):
    model = PromptTuning(**{"backbone": runs.bert(), "head": head, "length": P} | arguments)
    model.configure_model()
    return model


@pytest.mark.parametrize("name", DATA)
def test_a_step_moves_exactly_the_vectors_and_the_head(name):
    data = prepared(name)
    model = built(data.head, lr=0.1)
    before = {key: value.clone() for key, value in model.named_parameters()}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    L.Trainer(max_steps=1, limit_val_batches=1, enable_model_summary=False, **quiet).fit(model, data)
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert moved == set(model.trained()) >= {"prompt.vectors", "head.linear.weight"}


@pytest.mark.parametrize("name", DATA)
def test_vectors_that_are_the_embeddings_of_tokens_score_as_these_tokens_do(name):
    data = prepared(name)
    model = built(data.head, init="text", init_text="nurse pilot baker").eval()
    batch = next(iter(data.loader("validation")))
    words = batch | {"input_ids": batch["input_ids"].clone()}
    words["input_ids"][batch["slots"]] = torch.tensor(
        load(runs.bert()).convert_tokens_to_ids(["nurse", "pilot", "baker"])
    ).repeat(len(batch["slots"]))
    with torch.no_grad():
        hidden = model.backbone(words)
        assert_close(model(batch), model.head(hidden, batch, model.backbone), rtol=0, atol=1e-6)


def test_vocab_starts_from_words_drawn_by_the_seed():
    starts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        starts.append(built(runs_head()).prompt.vectors.detach())
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    tokenizer, words = load(runs.bert()), built(runs_head()).backbone.model.get_input_embeddings().weight
    for vector in starts[0]:
        (token,) = (words == vector).all(dim=1).nonzero()[0].tolist()
        assert tokenizer.convert_ids_to_tokens(token).isalpha()


def test_labels_start_from_the_mean_of_each_names_tokens_and_the_rest_from_words():
    head = HeadSpec("named", "classify", ("nurse", "the pilot was", "baker"), ("accuracy",), "accuracy")
    model = built(head, init="labels", length=5)
    words, tokenizer = model.backbone.model.get_input_embeddings().weight, load(runs.bert())

    def embedding(text):
        return words[tokenizer.convert_tokens_to_ids(text.split())].mean(0)

    vectors = model.prompt.vectors
    assert_close(vectors[:3], torch.stack([embedding(label) for label in head.labels]))
    assert all((words == vector).all(1).any() for vector in vectors[3:])
    assert_close(built(head, init="labels", length=2).prompt.vectors, vectors[:2])


def test_a_label_whose_name_has_no_tokens_starts_from_a_word():
    model = built(HeadSpec("named", "classify", ("\u200b", "nurse"), ("accuracy",), "accuracy"), init="labels")
    words = model.backbone.model.get_input_embeddings().weight
    assert (words == model.prompt.vectors[0]).all(1).any()


def test_embeddings_narrower_than_the_layers_are_filled_in_their_own_width(tiny, head):
    model = built(head("classify"), backbone=tiny("electra"), init="random")
    assert model.prompt.vectors.shape == (P, 16)


def test_a_backbone_whose_last_states_are_as_narrow_as_its_embeddings_is_prompted(tiny, head, batch):
    """OPT-350m projects both."""
    model = built(head("classify"), backbone=tiny("opt", word_embed_proj_dim=16))
    assert model(batch() | {"slots": (torch.arange(7) < P).expand(3, -1)}).shape == (3, 3)


def test_data_without_the_methods_slots_are_refused():
    data = prepared("toy/pair", slots=0)
    trainer = L.Trainer(
        max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    )
    with pytest.raises(InputError, match=r"data\.slots: 0, but PromptTuning fills 3; use slots=3"):
        trainer.fit(built(data.head), data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "length: 0 must be at least 1"),
        ({"init": "text"}, "init_text: '' and init: 'text' do not fit"),
        ({"init_text": "nurse"}, "init_text: 'nurse' and init: 'vocab' do not fit"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        PromptTuning(**{"backbone": runs.bert(), "head": runs_head()} | arguments)


def test_a_task_without_label_names_cannot_be_started_from_them(head):
    with pytest.raises(InputError, match="init: 'labels', but the task 'toy/span' has no label names; use init: vocab"):
        PromptTuning(backbone=runs.bert(), head=head("span"), init="labels")


def test_the_command_line_links_length_to_the_slots(tmp_path):
    code, _, error = runs.call(runs.line(tmp_path / "run", method="PromptTuning", model__length=4))
    assert code == 0, error
    assert (tmp_path / "run" / "prompts.safetensors").exists()


def runs_head():
    return Classification("toy/pair", backbone=runs.bert()).head
