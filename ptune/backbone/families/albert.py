"""ALBERT: all layers are one module, so each application of it is told which one it is."""

from dataclasses import replace
from typing import final

from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.albert.modeling_albert import AlbertLayerGroup, AlbertModel, AlbertTransformer


@final
class Transformer(AlbertTransformer):
    """Hands application i of the shared layer its own view of the prefix.

    A value in a keyword, not a counter: recomputing an application in the backward pass reads the same row again.
    """

    def forward(self, hidden_states, attention_mask=None, prefix=None, **kwargs):
        """Hidden states "b t e" to "b t d"."""
        if prefix is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        hidden = self.embedding_hidden_mapping_in(hidden_states)
        applications = self.config.num_hidden_layers
        for i in range(applications):
            group = self.albert_layer_groups[int(i / (applications / self.config.num_hidden_groups))]
            hidden = group(hidden, attention_mask, prefix=replace(prefix, application=i), **kwargs)
        return BaseModelOutput(last_hidden_state=hidden)


@final
class Group(GradientCheckpointingLayer, AlbertLayerGroup):
    """Checkpointed at each application with its prefix, which transformers cannot."""


@final
class Model(AlbertModel):
    """Its layers take keywords."""

    supports_gradient_checkpointing = True


CLASSES = (Model, Transformer, Group)
