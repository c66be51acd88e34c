"""GPT (the first, Radford et al. 2018): its causal mask is its bias."""

from typing import final

from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.openai.modeling_openai import Attention as GPTAttention
from transformers.models.openai.modeling_openai import Block, OpenAIGPTModel

from ptune.backbone.families import PrefixAttention, PrefixLayer, PrefixModel


@final
class Attention(PrefixAttention, GPTAttention):
    """Causal in the text; the prefix is before it."""

    is_causal = True

    def _attn(self, q, k, v, attention_mask=None, output_attentions=False):
        """Heads of the query and value "b h t k", of the key "b h k t", to [heads "b h t k"]; the mask is additive."""
        if self.prefix is None:
            return super()._attn(q, k, v, attention_mask, output_attentions)
        t, size = q.shape[2:]
        bias = -1e4 * (1 - self.bias[:, :, :t, :t])
        bias = bias if attention_mask is None else bias + attention_mask
        scale = size**-0.5 if self.scale else 1.0
        return [self.attend(q, k.mT, v, bias, scale, self.attn_dropout.p).transpose(1, 2)]


@final
class Layer(PrefixLayer, GradientCheckpointingLayer, Block):
    """Checkpointed with its prefix; transformers' class cannot be checkpointed."""

    def forward(self, *args, **kwargs):
        """A tuple: reentrant checkpointing finds no tensors in transformers' list."""
        return tuple(super().forward(*args, **kwargs))


@final
class Model(PrefixModel, OpenAIGPTModel):
    """Its layers take no keywords."""

    supports_gradient_checkpointing = True


CLASSES = (Model, Layer, Attention)
