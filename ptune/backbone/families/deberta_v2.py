"""DeBERTa v2 and v3: disentangled attention; content-to-position and position-to-content scores are its bias."""

from typing import final

import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Layer,
    DebertaV2Model,
    DisentangledSelfAttention,
)

from ptune.backbone.families import PrefixAttention, PrefixLayer, PrefixModel


@final
class Attention(PrefixAttention, DisentangledSelfAttention):
    """The keys of positions, shared with the content or not (`share_att_key`), belong to the text alone."""

    def forward(self, hidden_states, attention_mask, output_attentions=False, query_states=None, **relative):
        """Hidden states "b t d" to "b t d"; `attention_mask` "b 1 t t", 0 where hidden."""
        if self.prefix is None:
            return super().forward(hidden_states, attention_mask, output_attentions, query_states, **relative)
        heads = self.num_attention_heads
        query, key, value = (
            self.transpose_for_scores(project(hidden_states), heads)
            for project in (self.query_proj, self.key_proj, self.value_proj)
        )
        parts = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        bias = torch.zeros_like(attention_mask, dtype=query.dtype)
        if self.relative_attention:
            positions = self.pos_dropout(relative["rel_embeddings"])
            scores = self.disentangled_attention_bias(query, key, relative["relative_pos"], positions, parts)
            if self.pos_att_type:  # else 0
                bias = scores.unflatten(0, (-1, heads))  # type: ignore[union-attr]
        bias = bias.masked_fill(~attention_mask.bool(), torch.finfo(bias.dtype).min)
        query, key, value = (x.unflatten(0, (-1, heads)) for x in (query, key, value))
        scale = (query.shape[3] * parts) ** -0.5
        return self.attend(query, key, value, bias, scale, self.dropout.p).flatten(2), None


@final
class Layer(PrefixLayer, DebertaV2Layer):
    """Checkpointed with its prefix."""


@final
class Model(PrefixModel, DebertaV2Model):
    """Its layers take no further keywords."""


CLASSES = (Model, Layer, Attention)
