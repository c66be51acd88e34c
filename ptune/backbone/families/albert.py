"""ALBERT: all layers are one module, so each application of it is given its own number with the prefix."""

from dataclasses import replace
from typing import final

from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.albert.modeling_albert import AlbertLayerGroup, AlbertModel, AlbertTransformer


@final
class Transformer(AlbertTransformer):
    """Gives application i of the shared layer the prefix with `application=i`.

    The number is a value in a keyword, not a counter: checkpointing repeats an application with the same number.
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
    """Checkpointed at each application with its prefix; transformers' class cannot be checkpointed."""


@final
class Model(AlbertModel):
    """Passes keywords on to its layers."""

    supports_gradient_checkpointing = True


CLASSES = (Model, Transformer, Group)
