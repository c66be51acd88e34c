"""The norms of a trained prefix, read off its file without its backbone."""

import json
from pathlib import Path

from ptune.tuning import saving


def prefix_norms(file: Path) -> dict[int, tuple[float, float]]:
    """For each prompted layer the norms of its keys and of its values, as means over the prefix's p vectors.

    The file does not say how large each layer is: all are taken to be of one size, as they are in nearly all models.
    The columns lie as `PrefixEncoder` has them, each layer's key before its value.

    Args:
        file: a `prompts.safetensors`.

    Returns:
        Nothing for a file without a prefix, or that cannot be read.
    """
    try:
        tensors, metadata = saving.load(file)
        layers = json.loads(metadata.get("layers", "[]"))
    except ValueError:
        return {}
    table = tensors.get("prompt.encoder.flat")
    if table is None or not layers or table.ndim != 2 or table.shape[1] % (2 * len(layers)):
        return {}
    found = table.float().unflatten(1, (len(layers), 2, -1)).norm(dim=3).mean(0).tolist()
    return {int(layer): (keys, values) for layer, (keys, values) in zip(layers, found, strict=True)}
