"""`python -m ptune.export RUN_DIR FOLDER`: write a run's prompt as a folder to pass on, also as a PEFT adapter.

The folder is what `ptune.load` reads, with a model card. Beside it, where that is possible, is an adapter that PEFT
itself builds and whose scores of a text are compared with the run's before anything is written; `load_adapter` reads
one. `gaps` finds all the reasons why PEFT cannot express a run: it shifts positions by the prefix, puts soft prompts in
front of the whole text, has no gates, and pools a text as the heads of transformers do.
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

from ptune.backbone.pretrained import origin
from ptune.data.multi_task import ASK, MultiTask
from ptune.errors import InputError, printable
from ptune.heads.linear import LinearHead
from ptune.run.command import TRUST, Arguments, place, printed
from ptune.run.disk import told
from ptune.serving.folder import write_folder
from ptune.serving.loading import of_folder
from ptune.tuning import saving
from ptune.tuning.injected import peft_library
from ptune.tuning.peft_gaps import TASKS, gaps, one_text, other_pooling, prompts_of
from ptune.tuning.tuner import PromptTuner

if TYPE_CHECKING:
    from peft import PeftModel

WITHOUT_HEAD = ("FEATURE_EXTRACTION", "AutoModel")
CLOSE = 1e-4
"""Scores that differ by less, relative to the largest if that is above 1, are equal to float error."""
SMALL = 2.0**-16
"""Scale that makes a tanh layer the identity: RoBERTa's head has one, and tanh(SMALL x) / SMALL equals x to float error
(3e-7 for x = 60). A power of two scales without rounding."""


def write_adapter(model: PromptTuner, folder: str | Path, head: bool = True) -> str:
    """Write a trained prompt as a PEFT adapter folder; return the Python that loads it.

    Without `head`, the adapter is for a plain AutoModel and gives the run's hidden states. Raises InputError for what
    PEFT cannot express, with all reasons, and for a folder that is not empty.
    """
    peft = peft_library()
    folder = Path(folder)
    _check_empty(folder)
    model.configure_model()
    _refuse(gaps(model, head))
    task, name = TASKS[model.head_spec.kind] if head else WITHOUT_HEAD
    outputs = {"num_labels": max(len(model.head_spec.labels), 1)} if task in ("SEQ_CLS", "TOKEN_CLS") else {}
    place = origin(model.hparams["backbone"])
    path = place["pretrained_model_name_or_path"]
    safe = {"use_safetensors": True, "trust_remote_code": False}  # None would ask on stdin
    try:
        base = getattr(transformers, name).from_pretrained(**place, dtype=torch.float32, **safe, **outputs)
        settings = {"task_type": task, "num_virtual_tokens": model.hparams["length"]}
        adapter: PeftModel = peft.get_peft_model(base, getattr(peft, _counterpart(model))(**settings))
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
        raise InputError(
            f"backbone {path!r}: PEFT's scores would differ from the run's by {difference:.2g}; "
            + (f"{other_pooling(model, type(base).__name__)}; use --no-head." if head else "it cannot be exported.")
        )
    with told(folder, "give another folder."):
        adapter.save_pretrained(str(folder))
        _name_backbone(folder / "adapter_config.json", model.hparams["backbone"])
    options = {key: value for key, value in place.items() if value != path} | outputs
    more = "".join(f", {key}={value!r}" for key, value in options.items())
    return (
        f"from peft import PeftModel\nfrom transformers import {name}\n\n"
        f"model = {name}.from_pretrained({path!r}{more})\nmodel = PeftModel.from_pretrained(model, {str(folder)!r})"
    )


def _name_backbone(file: Path, name: str) -> None:
    """Name the backbone in PEFT's file as the run does: PEFT names the folder where it lies on this machine."""
    found = json.loads(file.read_text())
    saving.write_whole(file, json.dumps(found | {"base_model_name_or_path": name}, indent=2).encode())


def load_adapter(model: PromptTuner, folder: str | Path, head: bool = True) -> None:
    """Load a PEFT prefix or soft prompt into a method that `write_adapter` could export; it stays trainable.

    With `head`, a linear head in the adapter is loaded, too. A reparameterization of the model is folded. An adapter
    does not say for which weights it was trained: give the model the same backbone. Raises InputError that names what
    does not fit.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder}: not a folder with a PEFT adapter in safetensors ({error}).") from error
    model.configure_model()
    _refuse(gaps(model, head=False))
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
    ((_, parameter),) = model.prompt.named_parameters()  # type: ignore[union-attr]
    parameter.data.copy_(table)
    if head and tensors and linear is not None:
        linear.weight.data.copy_(found["weight"])
        if linear.bias is not None:  # else PEFT's bias would add the same to all endings or tokens, which has no effect
            linear.bias.data.copy_(found.get("bias", torch.zeros_like(linear.bias)))


def _refuse(reasons: list[str]) -> None:
    """Raise InputError with all reasons, if there are any."""
    if len(reasons) == 1:
        raise InputError(reasons[0])
    if reasons:
        listed = "; ".join(f"({i}) {reason.rstrip('.')}" for i, reason in enumerate(reasons, 1))
        raise InputError(f"PEFT cannot express this run, for {len(reasons)} reasons: {listed}.")


def _counterpart(model: PromptTuner) -> str:
    """The name of PEFT's configuration of such a prompt."""
    prompts = prompts_of(model)
    return "PromptTuningConfig" if prompts is None or prompts.prefix is None else "PrefixTuningConfig"


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
    batch = one_text(model)
    text = batch["input_ids"][:, model.slots :]
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


def run(args: list[str] | None = None) -> str:
    """Export the run that the command line names; the Python that loads it."""
    parser = Arguments("python -m ptune.export", description="Write a run's prompt as a folder to pass on.")
    parser.add_argument("run_dir", type=place, help="directory of a finished run")
    parser.add_argument("folder", type=place, help="folder to write, which must be empty or not there")
    parser.add_argument(
        "--to",
        choices=("both", "ptune", "peft"),
        default="both",
        help="for ptune.load, with a model card, for PEFT, or (default) for both; what PEFT cannot take is then told",
    )
    parser.add_argument("--license", default="unknown", help="the hub's name of the licence, such as apache-2.0")
    parser.add_argument("--no-head", action="store_true", help="PEFT: for a plain AutoModel: hidden states, no scores")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    arguments = parser.parse_args(args)
    folder = arguments.folder
    _check_empty(folder)
    warnings.filterwarnings("ignore", ".*is_gradient_checkpointing")  # PEFT asks transformers by its old name
    asked = of_folder(arguments.run_dir, trust=arguments.trust)
    if isinstance(asked.data, MultiTask):
        raise InputError(f"{arguments.run_dir}: {ASK}")
    lines, peft = [], ""
    if arguments.to != "ptune":
        try:
            peft = write_adapter(asked.model, folder, not arguments.no_head)
            lines = [f"# PEFT adapter in {printable(folder)}", peft]
        except InputError as error:
            if arguments.to == "peft":
                raise
            lines = [f"# No adapter for PEFT: {' '.join(str(error).split())}"]
    if arguments.to != "peft":
        with told(folder, "give another folder."):
            write_folder(arguments.run_dir, asked.model, asked.data, folder, arguments.license, peft)
        lines += [f"# For ptune, with a model card, in {printable(folder)}", "import ptune", ""]
        lines += [f"ask = ptune.load({str(folder)!r})"]
    return "\n".join(lines)


def _check_empty(folder: Path) -> None:
    """Raise InputError unless the folder is empty or not there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not an empty folder; give another.")


def main(args: list[str] | None = None) -> int:
    """Run the command line `args`; the exit code: 0, or 2 for a mistake in the input, told in one sentence."""
    return printed(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
