"""Learning rates at given steps, as functions and in a real run."""

import math

import lightning as L
import pytest
import torch

from ptune.errors import InputError
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.tuning.schedules import factor


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        # total 10, warm-up 2:    0    1    2    4    6    10   11 (past the end)
        ("linear", [0.0, 0.5, 1.0, 0.75, 0.5, 0.0, 0.0]),
        ("cosine", [0.0, 0.5, 1.0, 0.5 + math.sqrt(0.125), 0.5, 0.0, 0.0]),
        ("constant", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_rate_rises_over_the_warm_up_and_then_falls_as_the_schedule_says(schedule, steps):
    factors = [factor(step, 10.0, 2.0, schedule) for step in (0, 1, 2, 4, 6, 10, 11)]
    assert factors == pytest.approx(steps)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_without_warm_up_the_first_step_has_the_peak_rate(schedule):
    assert factor(0, 10.0, 0.0, schedule) == 1.0


def test_a_constant_rate_needs_no_end():
    assert factor(10**9, math.inf, 0.0, "constant") == 1.0


class Rates(L.Callback):
    """The learning rate of each parameter group at each step."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append({group["name"]: group["lr"] for group in optimizer.param_groups})


@pytest.fixture
def rates(tiny, head, batch, fit):
    """Rates of the steps of a run of 4 batches an epoch: rates({"schedule": "linear"}, max_epochs=2)."""

    def run(arguments, method=LinearProbe, **options):
        model = method(backbone=tiny("bert", num_hidden_layers=1), head=head("classify"), **arguments)
        callback = Rates()
        fit(model, [batch(labels=torch.tensor([0, 1, 2]))] * 4, callbacks=[callback], **options)
        return callback.steps

    return run


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        ({"schedule": "linear"}, {"max_epochs": 2}, [1 - i / 8 for i in range(8)]),
        ({"schedule": "linear", "warmup": 0.25}, {"max_epochs": 2}, [0, 0.5, *(1 - i / 6 for i in range(6))]),
        ({"schedule": "linear", "warmup": 2.0}, {"max_steps": 4}, [0, 0.5, 1, 0.5]),
        ({"schedule": "cosine"}, {"max_epochs": 1}, [(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]),
        ({"schedule": "constant", "warmup": 1.0}, {"max_epochs": 1}, [0, 1, 1, 1]),
        ({"schedule": "exponential", "decay": 0.5}, {"max_epochs": 3}, [1] * 4 + [0.5] * 4 + [0.25] * 4),
        ({"schedule": "linear"}, {"max_epochs": 2, "accumulate_grad_batches": 2}, [1, 0.75, 0.5, 0.25]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_run_follows_its_schedule(rates, arguments, options, expected):
    steps = rates({"lr": 0.1, **arguments}, **options)
    assert [step["head"] for step in steps] == pytest.approx([0.1 * value for value in expected])
    assert [step["head/1d"] for step in steps] == [step["head"] for step in steps]


def test_prompt_and_head_have_rates_of_their_own(rates):
    steps = rates({"lr": 0.1, "head_lr": 0.01, "schedule": "constant"}, PTuningV2)
    assert steps[0] == {"prompt": 0.1, "head": 0.01, "head/1d": 0.01}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"schedule": "exponential", "warmup": 10.0}, r"warmup: 10.0 has no effect with schedule 'exponential'"),
        ({"schedule": "linear"}, r"schedule: 'linear' needs the number of steps"),
        ({"schedule": "cosine"}, r"schedule: 'cosine' needs the number of steps"),
        ({"schedule": "constant", "warmup": 0.1}, r"schedule: 'constant' needs the number of steps"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_an_input_error_before_the_first_step(rates, arguments, reason):
    with pytest.raises(InputError, match=reason):
        rates(arguments, max_epochs=-1, max_time="00:00:00:01")


def test_a_constant_rate_runs_without_an_end(rates):
    steps = rates({"schedule": "constant", "warmup": 2.0, "lr": 0.1}, max_epochs=-1, max_time="00:00:00:01")
    assert [step["head"] for step in steps[:3]] == pytest.approx([0, 0.05, 0.1])
