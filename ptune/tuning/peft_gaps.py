"""What PEFT cannot express of a run, known before it is trained: `gaps`."""

import copy

import torch
import transformers
from torch import Tensor, nn

from ptune.backbone.tokenizer import load, text_start
from ptune.heads.linear import LinearHead
from ptune.prompts import Prompts
from ptune.tasks.templates import Template
from ptune.tuning.tuner import PromptTuner

TASKS = {
    "classify": ("SEQ_CLS", "AutoModelForSequenceClassification"),
    "regress": ("SEQ_CLS", "AutoModelForSequenceClassification"),
    "tag": ("TOKEN_CLS", "AutoModelForTokenClassification"),
    "span": ("QUESTION_ANS", "AutoModelForQuestionAnswering"),
}
"""PEFT's task type and the class of transformers for each kind of head."""


def gaps(model: PromptTuner, head: bool = True) -> list[str]:
    """All reasons why PEFT cannot express a run, each a sentence that names the option to change; none: it can.

    `head` is whether the scores are to be exported, not the hidden states alone. The answer is known before training.
    Weights need not be loaded; with them, the pooling that `pool: auto` stands for and the trained tensors of the
    backbone are checked as well. What a forward pass alone can show, `write_adapter` finds.
    """
    prompts = prompts_of(model)
    own = sum(name.startswith("prompt.") for name in model.tensors())
    if (
        prompts is None
        or prompts.late is not None
        or prompts.memory is not None
        or own != 1 + (prompts.gate is not None)
    ):
        return [f"model: {type(model).__name__} has no prompt for PEFT; PTuningV2, PromptTuning and PTuning do."]
    return _prompt_gaps(model, prompts) + (_head_gaps(model) if head else [])


def _prompt_gaps(model: PromptTuner, prompts: Prompts) -> list[str]:
    """Why PEFT has no such prompt, of those that it has a form of."""
    backbone, found = model.hparams["backbone"], []
    if type(model.spec.config).is_encoder_decoder:
        found.append(f"backbone {backbone!r}: of an encoder-decoder, PEFT prompts the decoder, ptune the encoder.")
    for name, off in {"backbone_lr": "use 0", "also": "leave it out"}.items():
        if value := model.hparams.get(name):
            found.append(
                f"{name}: {value} trains tensors of the backbone, too, which a prompt of PEFT does not hold; {off}."
            )
    if prompts.prefix is not None:
        if prompts.gate is not None:
            found.append("gate: true (also init: identity), but PEFT has no gates; use gate: false and another init.")
        if prompts.layers is not None and len(prompts.layers) < model.spec.layers:
            found.append(f"layers: {list(prompts.layers)} are prompted, but PEFT prompts all; use layers: all.")
        if not prompts.shift:
            found.append("shift_positions: false, but PEFT shifts the text's positions; use shift_positions: true.")
        return found
    if model.spec.embedding_width != model.spec.width:
        found.append(f"backbone {backbone!r}: PEFT fails where embeddings are narrower than layers; use a prefix.")
    if model.head_spec.template and Template(model.head_spec.template).slots:
        found.append(
            f"--data.template {model.head_spec.template!r} has slots of its own, and PEFT puts a soft prompt in front "
            "of the text; use a template without."
        )
    if text_start(load(backbone)):
        found.append(
            f"backbone {backbone!r}: PEFT puts a soft prompt in front of its first special token, ptune behind it, "
            "where heads expect it; use a prefix (PTuningV2), or a backbone without such a token (GPT-2)."
        )
    return found


def _head_gaps(model: PromptTuner) -> list[str]:
    """Why the heads of transformers give other scores, as far as their modules show."""
    kind = model.head_spec.kind
    if kind not in TASKS:
        return [f"head: PEFT has no model with a head of the kind {kind!r}; use --no-head."]
    config = copy.deepcopy(model.spec.config)
    try:
        with torch.device("meta"):  # the modules without their weights
            base = getattr(transformers, TASKS[kind][1]).from_config(config, trust_remote_code=False)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return []  # transformers has no such class for this family, which `write_adapter` says
    found, who = [], type(base).__name__
    layers = [layer for name in ("classifier", "score", "qa_outputs") if (layer := getattr(base, name, None))]
    if not layers or not isinstance(layers[0], nn.Linear) or not isinstance(model.head, LinearHead):
        return []
    if layers[0].bias is None and model.head.linear.bias is not None:
        found.append(
            f"head_bias: true, but the head of {who} has no bias; train with head_bias: false, or use --no-head."
        )
    pooling = model.hparams["pool"] if model.backbone is None else model.backbone.pooling
    inner = getattr(base, base.base_model_prefix, None)
    theirs = "last" if hasattr(base, "score") else "pooler" if getattr(inner, "pooler", None) is not None else ""
    if model.head.pools and theirs and pooling not in ("auto", theirs):
        found.append(f"pool: {other_pooling(model, who)}; use pool: {theirs}, or --no-head.")
    return found


def other_pooling(model: PromptTuner, who: str) -> str:
    """The part of a sentence that says that the class `who` of transformers pools otherwise."""
    pooling = model.hparams["pool"] if model.backbone is None else model.backbone.pooling
    return f"{who} may read a text otherwise than `pool: {pooling}` does"


@torch.no_grad()
def prompts_of(model: PromptTuner) -> Prompts | None:
    """What the method adds to one text, in eval mode."""
    training = model.training
    try:
        return model.eval().prompts(one_text(model))
    finally:
        model.train(training)


def one_text(model: PromptTuner) -> dict[str, Tensor]:
    """One text, behind the method's slots."""
    text, p = torch.tensor([[5, 6, 7, 8, 7, 6, 8, 5]], device=model.device), model.slots
    ids = torch.cat([text[:, :1].expand(1, p), text], dim=1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "slots": torch.arange(ids.shape[1], device=text.device)[None] < p,
        "group": ids.new_zeros(1),  # of the first one of several tasks
    }
