"""Prompts to PEFT and back: `python -m ptune.export RUN_DIR FOLDER` writes an adapter folder, `load_adapter` reads one.

What is written is built by PEFT itself and compared with the run on a text, before anything is written. What PEFT
cannot express is refused with the reason: it shifts positions by the prefix, puts soft prompts in front of the whole
text, has no gates, and reads a text as the heads of transformers do.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ptune.backbone.pretrained import locate
from ptune.backbone.tokenizer import load, text_start
from ptune.errors import InputError, require
from ptune.heads.linear import LinearHead
from ptune.methods.p_tuning import PTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning, SoftPrompt
from ptune.run.finished import Arguments, command, read
from ptune.tasks.templates import Template
from ptune.tuning.tuner import PromptTuner

if TYPE_CHECKING:
    from peft import PeftModel

TASKS = {
    "classify": ("SEQ_CLS", "AutoModelForSequenceClassification"),
    "regress": ("SEQ_CLS", "AutoModelForSequenceClassification"),
    "tag": ("TOKEN_CLS", "AutoModelForTokenClassification"),
    "span": ("QUESTION_ANS", "AutoModelForQuestionAnswering"),
}
"""PEFT's task type and the class of transformers for each kind of head."""
WITHOUT_HEAD = ("FEATURE_EXTRACTION", "AutoModel")
CLOSE = 1e-4
"""Scores that differ by less, relative to the largest if that is above 1, are equal to float error."""
SMALL = 2.0**-16
"""tanh(SMALL x) / SMALL is x to float error (3e-7 for x = 60), and scaling by a power of two is exact."""


def write_adapter(model: PromptTuner, folder: str | Path, head: bool = True) -> str:
    """Write a trained prompt as a PEFT adapter folder; the Python that loads it.

    Without `head` the adapter is for a plain AutoModel and gives the run's hidden states. Raises InputError for what
    PEFT cannot express, with the reason, and for a folder that is not empty.
    """
    peft = require("peft", "peft")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not an empty folder; give another.")
    model.configure_model()
    config = _counterpart(model)
    if head and model.head_spec.kind not in TASKS:
        raise InputError(f"head: PEFT has no model with a head of the kind {model.head_spec.kind!r}; use --no-head.")
    task, name = TASKS[model.head_spec.kind] if head else WITHOUT_HEAD
    outputs = {"num_labels": max(len(model.head_spec.labels), 1)} if task in ("SEQ_CLS", "TOKEN_CLS") else {}
    path = locate(model.hparams["backbone"])
    try:
        base = getattr(transformers, name).from_pretrained(path, dtype=torch.float32, use_safetensors=True, **outputs)
        options = {"task_type": task, "num_virtual_tokens": model.hparams["length"]}
        adapter: PeftModel = peft.get_peft_model(base, getattr(peft, config)(**options))
        adapter.prompt_encoder["default"].load_state_dict({"embedding.weight": _table(model)})  # type: ignore[union-attr]
        if head:
            _set_head(adapter, model)
        difference = _difference(model, adapter.eval(), head)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"backbone {path!r}: PEFT cannot prompt {name} of it ({reason}).") from error
    if not difference < CLOSE:
        other = f"{type(base).__name__} may read a text otherwise than `pool: {model.backbone.pooling}` does"
        raise InputError(
            f"backbone {path!r}: PEFT's scores would differ from the run's by {difference:.2g}; "
            + (f"{other}; use --no-head." if head else "this family cannot be exported.")
        )
    adapter.save_pretrained(str(folder))
    more = "".join(f", {key}={value}" for key, value in outputs.items())
    return (
        f"from peft import PeftModel\nfrom transformers import {name}\n\n"
        f"model = {name}.from_pretrained({path!r}{more})\nmodel = PeftModel.from_pretrained(model, {str(folder)!r})"
    )


def load_adapter(model: PromptTuner, folder: str | Path, head: bool = True) -> None:
    """Load a PEFT prefix into a PTuningV2, or a soft prompt into a PromptTuning or PTuning; it stays trainable.

    With `head`, a linear head that the adapter holds comes along. A reparameterization of the model is folded. An
    adapter does not tell for which weights it was trained: give the model the same backbone. Raises InputError that
    says what does not fit.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder}: not a folder with a PEFT adapter in safetensors ({error}).") from error
    model.configure_model()
    kind = {"PrefixTuningConfig": ("PREFIX_TUNING",), "PromptTuningConfig": ("PROMPT_TUNING", "P_TUNING")}
    if config["peft_type"] not in kind[_counterpart(model)]:
        raise InputError(
            f"{folder}: holds a {config['peft_type']} adapter, which a {type(model).__name__} cannot load."
        )
    table = tensors.pop("prompt_embeddings")
    own = _table(model)
    if table.shape != own.shape:
        raise InputError(
            f"{folder}: its prompt is {list(table.shape)}, the model's {list(own.shape)}; fit --model.length."
        )
    found = {name.rpartition(".")[2]: value for name, value in tensors.items()}
    linear = model.head.linear if isinstance(model.head, LinearHead) else None
    fits = linear is not None and len(found) == len(tensors) and found["weight"].shape == linear.weight.shape
    if head and tensors and not fits:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in tensors.items())
        raise InputError(f"{folder}: its head ({shapes}) is not this model's; load without it (head=False).")
    model.fold()
    name = "vectors" if isinstance(model.prompt, SoftPrompt) else "encoder.flat"
    model.prompt.get_parameter(name).data.copy_(table)  # type: ignore[union-attr]
    if head and tensors and linear is not None:
        linear.weight.data.copy_(found["weight"])
        if linear.bias is not None:  # without one, theirs would move all endings or tokens alike: nothing
            linear.bias.data.copy_(found.get("bias", torch.zeros_like(linear.bias)))


def _counterpart(model: PromptTuner) -> str:
    """The name of PEFT's configuration of such a prompt; InputError with the reason where it has none."""
    backbone = model.hparams["backbone"]
    if type(model.spec.config).is_encoder_decoder:
        raise InputError(f"backbone {backbone!r}: of an encoder-decoder, PEFT prompts the decoder, ptune the encoder.")
    if isinstance(model, PTuningV2):
        if model.prompt.gate is not None:
            raise InputError("init: identity has gates, which PEFT does not; use init: normal or text.")
        if len(model.layers) < model.spec.layers:
            raise InputError(f"layers: {list(model.layers)} are prompted, but PEFT prompts all; use layers: all.")
        if not model.shift:
            raise InputError("shift_positions: false, but PEFT shifts the text's positions; use shift_positions: true.")
        return "PrefixTuningConfig"
    if not isinstance(model, PromptTuning | PTuning):
        raise InputError(
            f"model: {type(model).__name__} has no prompt for PEFT; PTuningV2, PromptTuning and PTuning do."
        )
    if model.backbone_parameters(model.backbone):
        raise InputError("backbone_lr: the backbone was trained, too, which a prompt of PEFT does not hold; use 0.")
    if model.spec.embedding_width != model.spec.width:
        raise InputError(f"backbone {backbone!r}: PEFT fails where embeddings are narrower than layers; use a prefix.")
    if model.head_spec.template and Template(model.head_spec.template).slots:
        raise InputError(
            f"--data.template {model.head_spec.template!r} has slots of its own, and PEFT puts a soft prompt in front "
            "of the text; use a template without."
        )
    if text_start(load(backbone)):
        raise InputError(
            f"backbone {backbone!r}: PEFT puts a soft prompt in front of its first special token, ptune behind it, "
            "where heads expect it; use a prefix (PTuningV2), or a backbone without such a token (GPT-2)."
        )
    return "PromptTuningConfig"


def _table(model: PromptTuner) -> Tensor:
    """The prompt in PEFT's layout, which for a prefix is ours: "p (2 l h k)"; "p d" for a soft prompt."""
    return next(value for name, value in model.tensors().items() if name.startswith("prompt.")).detach()


def _set_head(adapter: "PeftModel", model: PromptTuner) -> None:
    """Copy the head into the adapter's; InputError where that is of another form."""
    name = adapter.cls_layer_name
    layer: nn.Module = adapter.base_model.get_submodule(name).modules_to_save["default"]  # type: ignore[index]
    assert isinstance(model.head, LinearHead)  # TASKS has no other
    ours, theirs = model.head.linear, dict(layer.named_parameters())
    bias = torch.zeros(len(ours.weight)) if ours.bias is None else ours.bias.detach()
    values = {"weight": ours.weight.detach(), "bias": bias}
    if set(theirs) == {"weight"} and bias.any():
        raise InputError(
            f"head_bias: true, but the head of {type(adapter.base_model).__name__} has no bias; train with head_bias: "
            "false, or use --no-head."
        )
    if set(theirs) == {"dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias"}:  # RoBERTa's
        if model.backbone.pooler is None:
            d = model.spec.width
            dense, scale = {"weight": SMALL * torch.eye(d), "bias": torch.zeros(d)}, 1 / SMALL
        else:
            dense, scale = dict(model.backbone.pooler.dense.named_parameters()), 1.0  # type: ignore[union-attr]
        values = {f"dense.{key}": value for key, value in dense.items()}
        values |= {"out_proj.weight": scale * ours.weight.detach(), "out_proj.bias": bias}
    for key, value in theirs.items():
        if key not in values or values[key].shape != value.shape:
            raise InputError(
                f"head: {type(adapter.base_model).__name__} has {name}.{key}, ptune no such; use --no-head."
            )
        value.data.copy_(values[key])


@torch.no_grad()
def _difference(model: PromptTuner, adapter: "PeftModel", head: bool) -> float:
    """How far PEFT's output for a text is from ours, relative to the largest value if that is above 1."""
    text, p = torch.tensor([[5, 6, 7, 8, 7, 6, 8, 5]], device=model.backbone.model.device), model.slots
    batch = {"input_ids": torch.cat([text[:, :1].expand(1, p), text], dim=1)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["slots"] = torch.arange(len(text[0]) + p, device=text.device)[None] < p
    training = model.training
    model.eval()
    ours = (model(batch) if head else model.backbone(batch, model.prompts(batch))).cpu()
    model.train(training)
    output = adapter(input_ids=text.cpu(), attention_mask=torch.ones_like(text.cpu()))
    if not head:
        theirs = output.last_hidden_state
    elif model.head_spec.kind == "span":
        theirs = torch.stack([output.start_logits, output.end_logits], dim=-1)
    else:
        theirs = output.logits
    if theirs.numel() != ours.numel():
        return float("inf")
    return ((ours - theirs.view_as(ours)).abs().max() / ours.abs().max().clamp(min=1)).item()


def main(args: list[str] | None = None) -> str:
    """Export the run that the command line names; the Python that loads it."""
    parser = Arguments("python -m ptune.export", description="Write a run's prompt as a PEFT adapter folder.")
    parser.add_argument("run_dir", type=Path, help="directory of a finished run")
    parser.add_argument("folder", type=Path, help="folder to write, which must be empty or not there")
    parser.add_argument("--no-head", action="store_true", help="for a plain AutoModel: hidden states, no scores")
    arguments = parser.parse_args(args)
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing")  # PEFT asks transformers by its old name
    model, _ = read(arguments.run_dir)
    return f"# PEFT adapter in {arguments.folder}\n" + write_adapter(model, arguments.folder, not arguments.no_head)


if __name__ == "__main__":
    sys.exit(command(main))
