"""MPNet: BERT's attention and a relative position bias."""

from typing import final

from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.mpnet.modeling_mpnet import MPNetLayer, MPNetModel, MPNetSelfAttention

from ptune.backbone.families import PrefixAttention, PrefixLayer, PrefixModel


@final
class Attention(PrefixAttention, MPNetSelfAttention):
    """The position bias of the text is the bias."""

    def forward(self, hidden_states, attention_mask=None, position_bias=None, output_attentions=False, **kwargs):
        """Hidden states "b t d" to "b t d"; `position_bias` "b h t t", `attention_mask` "b 1 t t" additive."""
        if self.prefix is None or position_bias is None:
            return super().forward(hidden_states, attention_mask, position_bias, output_attentions, **kwargs)
        heads = (self.num_attention_heads, self.attention_head_size)
        query, key, value = (
            project(hidden_states).unflatten(2, heads).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        bias = position_bias if attention_mask is None else position_bias + attention_mask
        output = self.attend(query, key, value, bias, self.attention_head_size**-0.5, self.dropout.p)
        return (self.o(output.flatten(2)),)


@final
class Layer(PrefixLayer, GradientCheckpointingLayer, MPNetLayer):
    """Checkpointed with its prefix; transformers' class cannot be checkpointed."""


@final
class Model(PrefixModel, MPNetModel):
    """Its layers drop keywords."""

    supports_gradient_checkpointing = True


CLASSES = (Model, Layer, Attention)
