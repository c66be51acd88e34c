"""The frozen model: all that knows transformers."""

from ptune.backbone.model import Backbone as Backbone
