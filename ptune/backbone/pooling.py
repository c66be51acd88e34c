"""Pooling: one vector a text, read as the checkpoint was trained to be read."""

import json
import os
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from ptune.backbone.pretrained import BackboneSpec, Pool, origin
from ptune.backbone.private import optional_file
from ptune.errors import InputError


def take_pooling(
    pool: Pool, model: PreTrainedModel, spec: BackboneSpec, trained_pooler: bool, causal: bool
) -> tuple[Pool, nn.Module | None]:
    """The way a text is pooled, never `auto`, and the pooler, where it is that.

    The model's own pooler is replaced by an identity: it is applied in `pooled`, or not at all, so that no weights are
    kept and no work is done that nothing reads. `trained_pooler` says whether its weights are the checkpoint's.

    Raises:
        InputError: `pooler` without a trained one.
    """
    own = getattr(model, "pooler", None)  # absent in most families, None in some
    pooler = own if isinstance(own, nn.Module) and trained_pooler else None
    if pool == "auto":
        pool = sentence_pooling(spec.name) or family_pooling(spec, pooler is not None, causal)
    if pool == "pooler" and pooler is None:
        raise InputError(
            f"pool: 'pooler', but the checkpoint {spec.name!r} has no trained one; choose first, mean or last."
        )
    if isinstance(own, nn.Module):
        model.pooler = nn.Identity()  # not every family's forward takes None
    return pool, pooler.float() if pool == "pooler" and pooler is not None else None


def pooled(
    hidden: Float[Tensor, "b t d"], batch: dict[str, Tensor], pooling: Pool, pooler: nn.Module | None
) -> Float[Tensor, "b d"]:
    """One vector a text; prompt slots are no text and are left out of the mean."""
    if pooling == "pooler" and pooler is not None:
        if isinstance(pooler, nn.Linear):  # of ALBERT and BigBird, whose tanh is another module
            return torch.tanh(pooler(hidden[:, 0]))
        return pooler(hidden)
    if (place := pooled_place(batch, pooling)) is not None:
        return hidden[torch.arange(len(hidden), device=hidden.device), place]
    mask: Bool[Tensor, "b t"] = batch["attention_mask"].bool()
    if "slots" in batch:
        mask = mask & ~batch["slots"]
    weights = (mask / mask.sum(1, keepdim=True)).to(hidden.dtype)
    return torch.einsum("bt,btd->bd", weights, hidden)


def pooled_place(batch: dict[str, Tensor], pooling: Pool) -> Int[Tensor, " b"] | None:
    """The place of the token of each text that is read, None where all are."""
    mask: Int[Tensor, "b t"] = batch["attention_mask"].int()
    match pooling:
        case "pooler":
            return torch.zeros_like(mask[:, 0])
        case "first":
            return mask.argmax(1)
        case "last":
            return mask.shape[1] - 1 - mask.flip(1).argmax(1)
    return None


def family_pooling(spec: BackboneSpec, pooler: bool, causal: bool) -> Pool:
    """The pooling of a family, given whether its checkpoint has a trained pooler and whether it is causal."""
    if pooler:
        return "pooler"
    if type(spec.config).is_encoder_decoder:
        return "mean"  # its encoder was trained to be attended to, not to sum up in one token (Sentence-T5)
    last = getattr(spec.config, "summary_type", None) == "last"  # XLNet: its [CLS] ends the text
    return "last" if last or causal else "first"


def sentence_pooling(name: str) -> Pool | None:
    """Pooling of a sentence-transformers checkpoint, which says so in `1_Pooling/config.json`; None for others."""
    folder = origin(name)["pretrained_model_name_or_path"]
    if os.path.isdir(folder):
        file = os.path.join(folder, "1_Pooling", "config.json")
        file = file if os.path.isfile(file) else None
    else:
        file = optional_file(folder, "1_Pooling/config.json")
    if file is None:
        return None
    modes = json.loads(Path(file).read_text())
    if modes.get("pooling_mode_mean_tokens"):
        return "mean"
    return "first" if modes.get("pooling_mode_cls_token") else None
