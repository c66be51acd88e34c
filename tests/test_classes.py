"""Every class of the package is abstract or final, so that what can be built is complete and is nobody's base."""

import importlib
import inspect
import pkgutil

import pytest
from methods_table import TABLE

import ptune
from ptune.errors import InputError
from ptune.heads import Head
from ptune.tuning.tuner import PromptTuner

MIXINS = {"PrefixAttention", "PrefixModel", "QueryModel", "PrefixLayer", "KeepsCast"}
"""Of ptune.backbone: each stands in front of a class of transformers, which completes it."""


def modules():
    """Every module of the package but the `__main__` ones, which run a command when imported."""
    names = [module.name for module in pkgutil.walk_packages(ptune.__path__, "ptune.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def classes():
    """Every class that is defined in the package."""
    return [
        value
        for module in modules()
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    ]


def test_every_class_is_abstract_or_final():
    found = classes()
    assert {"PromptTuner", "PTuningV2", "Head", "Backbone"} <= {cls.__name__ for cls in found}
    open_classes = [
        f"{cls.__module__}.{cls.__name__}"
        for cls in found
        if not inspect.isabstract(cls)
        and "__final__" not in vars(cls)
        and not (cls.__module__.startswith("ptune.backbone.") and cls.__name__ in MIXINS)
        and cls is not InputError
    ]
    assert open_classes == []


def test_every_method_stands_in_the_table_that_the_tests_iterate_over():
    methods = {cls for cls in classes() if issubclass(cls, PromptTuner) and not inspect.isabstract(cls)}
    assert {case.method for case in TABLE.values()} == methods


def test_no_class_inherits_from_a_final_one():
    for cls in classes():
        assert not [base for base in cls.__mro__[1:] if "__final__" in vars(base)], cls


def test_a_method_without_prompts_cannot_be_built(tiny, head):
    class Forgetful(PromptTuner):
        def prompt_for(self, batch):
            return None

    with pytest.raises(TypeError, match=r"abstract method '?prompts'?"):
        Forgetful(backbone=tiny("bert"), head=head("classify"))


def test_a_head_without_scores_or_loss_cannot_be_built():
    with pytest.raises(TypeError, match="abstract methods"):
        Head()
