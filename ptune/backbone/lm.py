"""`LMHead`: a pretrained language model's own head, for chosen positions and chosen words only."""

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from ptune.backbone.pretrained import BackboneSpec
from ptune.errors import InputError


@final
class _States(BaseModelOutputWithPastAndCrossAttentions):
    """A body's output with nothing but its last hidden states; every other field that a head may read is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@final
class _Body(nn.Module):
    """Replaces the body of a language model: returns the hidden states that it is given as `inputs_embeds`."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _States:
        return _States(last_hidden_state=inputs_embeds)  # type: ignore[arg-type]

    @property
    def decoder(self) -> nn.Module:
        """The part of the body that OPT's language model calls instead of the body."""
        return self


@final
class LMHead(nn.Module):
    """The head of a masked or causal language model, whole: its transform, its decoder, its soft caps.

    The forward pass is the language model's own with the body replaced, so that no family needs code here. For the
    scores of u words the decoder's weight is replaced by its rows for these words.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        decoder = model.get_output_embeddings()
        setattr(model, model.base_model_prefix, _Body())
        self.model = model
        self.decoder = next(name for name, module in model.named_modules() if module is decoder)

    def forward(self, hidden: Float[Tensor, "... d"], words: Int[Tensor, " u"] | None = None) -> Float[Tensor, "... u"]:
        """Scores (logits, fp32) of the words with these token ids, or of all words, for each hidden state."""
        decoder = self.model.get_submodule(self.decoder)
        dtype = decoder.weight.dtype  # bf16 for a backbone in bf16, which returns hidden states in fp32
        flat = {"inputs_embeds": hidden.reshape(1, -1, hidden.shape[-1]).to(dtype)}  # type: ignore[arg-type]
        if words is None:
            logits = self.model(**flat).logits
        else:
            # The decoder's parameters, and a bias that stands beside it (ESM). No other parameter of the head has a row
            # for each word of the vocabulary.
            own, bias = f"{self.decoder}.", decoder.weight.shape[:1]  # type: ignore[index]
            named = self.model.named_parameters()
            rows = {name: value[words] for name, value in named if name.startswith(own) or value.shape == bias}
            logits = functional_call(self.model, rows, (), flat).logits
        return logits.float().view(*hidden.shape[:-1], -1)


def auto(spec: BackboneSpec) -> Any:
    """Transformers' auto class for a family's language model; transformers lists XLNet's as a causal one."""
    masked = spec.lm == "masked" and type(spec.config) in MODEL_FOR_MASKED_LM_MAPPING
    return AutoModelForMaskedLM if masked else AutoModelForCausalLM


def load_language_model(spec: BackboneSpec, **options: Any) -> tuple[Any, LMHead, dict[str, Any]]:
    """The body of a pretrained language model, its head, and `from_pretrained`'s loading info.

    `options` are the keywords of `from_pretrained`.

    Raises:
        InputError: the family has no language model, or the checkpoint lacks its head.
    """
    if spec.lm is None:
        raise InputError(
            f"{spec.who} has no language model of its own, which reads a template; leave the template out, or choose "
            "another backbone."
        )
    if "quantization_config" in options:  # all but the decoder, whose weights are the word embeddings in most families
        with torch.device("meta"):
            empty = auto(spec).from_config(options["config"], trust_remote_code=False)
        decoder = empty.get_output_embeddings()
        names = [name for name, module in empty.named_modules() if module is decoder]
        options["quantization_config"].llm_int8_skip_modules += names
    model, loading = auto(spec).from_pretrained(**options)
    body = model.base_model
    prefix = f"{model.base_model_prefix}."
    missing = [key for key in loading["missing_keys"] if not key.startswith(prefix)]
    if missing:
        raise InputError(
            f"backbone {spec.name!r}: its checkpoint has no trained language-model head (it lacks {missing[0]!r}), "
            "which reads a template; leave the template out, or choose a language model's checkpoint."
        )
    loading["missing_keys"] = [key.removeprefix(prefix) for key in loading["missing_keys"]]
    return body, LMHead(model), loading
