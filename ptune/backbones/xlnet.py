"""XLNet: content attention with r_w_bias; position and segment scores are its bias."""

import torch
from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

from ptune.backbones import PrefixAttention, PrefixModel


class Attention(PrefixAttention, XLNetRelativeAttention):
    """The relative shift sees the text alone: no position and no segment is a prefix's."""

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


class Model(PrefixModel, XLNetModel):
    """Its layers take no keywords; it cannot checkpoint gradients."""

    def relative_positional_encoding(self, *args, **kwargs):
        """Waves "s b d", in the weights' own precision: transformers has them in fp32 always."""
        return super().relative_positional_encoding(*args, **kwargs).to(self.dtype)


CLASSES = (Model, Attention)
