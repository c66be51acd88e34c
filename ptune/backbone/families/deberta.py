"""DeBERTa (v1): disentangled attention; content-to-position and position-to-content scores are its bias."""

from typing import final

import torch
from transformers.models.deberta.modeling_deberta import DebertaLayer, DebertaModel, DisentangledSelfAttention

from ptune.backbone.families import PrefixAttention, PrefixLayer, PrefixModel


@final
class Attention(PrefixAttention, DisentangledSelfAttention):
    """Talking heads mix scores across heads, which no bias expresses: with them no prefix is read, which is refused."""

    def forward(self, hidden_states, attention_mask, output_attentions=False, query_states=None, **relative):
        """Hidden states "b t d" to "b t d"; `attention_mask` "b 1 t t", 0 where hidden."""
        if self.prefix is None or self.talking_head:
            return super().forward(hidden_states, attention_mask, output_attentions, query_states, **relative)
        query, key, value = self.transpose_for_scores(self.in_proj(hidden_states)).chunk(3, dim=-1)
        query = query + self.transpose_for_scores(self.q_bias[None, None])
        value = value + self.transpose_for_scores(self.v_bias[None, None])
        parts = 1 + len(self.pos_att_type)
        scale = (self.attention_head_size * parts) ** -0.5
        bias = torch.zeros_like(attention_mask, dtype=query.dtype)
        if self.relative_attention:
            positions = self.pos_dropout(relative["rel_embeddings"])
            scores = self.disentangled_att_bias(query * scale, key, relative["relative_pos"], positions, parts)
            bias = bias + scores  # 0 where neither kind of score is used
        bias = bias.masked_fill(~attention_mask.bool(), torch.finfo(bias.dtype).min)
        return self.attend(query, key, value, bias, scale, self.dropout.p).flatten(2), None


@final
class Layer(PrefixLayer, DebertaLayer):
    """Checkpointed with its prefix."""


@final
class Model(PrefixModel, DebertaModel):
    """Its layers take no further keywords."""


CLASSES = (Model, Layer, Attention)
