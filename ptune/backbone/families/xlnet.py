"""XLNet: content attention with r_w_bias; position and segment scores are its bias. Both streams read the prefix."""

from typing import final

import torch
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.xlnet.modeling_xlnet import XLNetLayer, XLNetModel, XLNetRelativeAttention

from ptune.backbone.families import PrefixAttention, PrefixLayer, QueryModel


@final
class Attention(PrefixAttention, XLNetRelativeAttention):
    """The relative shift is applied to the text alone: the prefix has no position and no segment."""

    def rel_attn_core(
        self, q_head, k_head_h, v_head_h, k_head_r, seg_mat=None, attn_mask=None, output_attentions=False
    ):
        """Heads "t b h k" to "t b h k"; `attn_mask` "t s b 1", `seg_mat` "t s b 2"."""
        if self.prefix is None:
            return super().rel_attn_core(q_head, k_head_h, v_head_h, k_head_r, seg_mat, attn_mask, output_attentions)
        position = torch.einsum("ibnd,jbnd->bnij", q_head + self.r_r_bias, k_head_r)
        bias = self.rel_shift_bnij(position, klen=len(k_head_h))
        if seg_mat is not None:
            segment = torch.einsum("ibnd,snd->ibns", q_head + self.r_s_bias, self.seg_embed)
            bias = bias + torch.einsum("ijbs,ibns->bnij", seg_mat, segment)
        bias = bias * self.scale
        if attn_mask is not None:
            bias = bias - 1e30 * attn_mask.permute(2, 3, 0, 1).to(bias.dtype)
        query, key, value = (x.permute(1, 2, 0, 3) for x in (q_head + self.r_w_bias, k_head_h, v_head_h))
        return self.attend(query, key, value, bias, self.scale, self.dropout.p).transpose(0, 1)


@final
class Layer(PrefixLayer, GradientCheckpointingLayer, XLNetLayer):
    """Checkpointed with its prefix; transformers' class cannot be checkpointed."""


@final
class Model(QueryModel, XLNetModel):
    """Its layers take no keywords."""

    supports_gradient_checkpointing = True

    def forward(self, input_ids, answer_at=None, **kwargs):
        """The model's own; with `answer_at` "b a" the query stream at these places, whose tokens are hidden."""
        # Words are embedded here, where a text is a row as in the mask of slots; transformers transposes them first.
        kwargs["inputs_embeds"] = self.word_embedding(input_ids)
        if answer_at is None:
            return super().forward(**kwargs)
        t = input_ids.shape[1]
        places = F.one_hot(answer_at, t).to(self.dtype)  # "b a t"
        # A shorter answer repeats its last place. Where two queries share one, the query stream adds them up.
        places = places * (places.cumsum(1) < 2)
        hidden_from_all = (places.sum(1, keepdim=True) > 0).to(self.dtype).expand(-1, t, -1)
        output = super().forward(perm_mask=hidden_from_all, target_mapping=places, **kwargs)
        queries = output.last_hidden_state
        output.last_hidden_state = places.to(queries.dtype).mT @ queries
        return output

    def relative_positional_encoding(self, *args, **kwargs):
        """Sinusoids "s b d" in the dtype of the weights; transformers' are always fp32."""
        return super().relative_positional_encoding(*args, **kwargs).to(self.dtype)


CLASSES = (Model, Layer, Attention)
