"""The ladder when the engine itself fails, and is asked again."""

from __future__ import annotations

import pytest

from llmcore.errors import (
    ContextCreationError,
    InsufficientMemoryError,
    ModelLoadError,
    ParameterError,
)
from llmcore.memory.fitting import retrying
from llmcore.memory.ladder import (
    FewerGpuLayers,
    Plan,
    Room,
    SmallerCacheType,
    ToCpu,
)

from .ladder_model import WANTED, path_down, room


def test_the_engine_is_asked_again():
    """After the engine's own failure the next smaller plan is tried, and kept."""
    tried: list[Plan] = []

    def attempt(plan: Plan) -> str:
        tried.append(plan)
        if len(tried) < 3:
            raise InsufficientMemoryError("out of memory")
        return "made"

    made, fitted = retrying(WANTED, attempt, room(10**12))
    assert "made" == made
    assert [512, 256, 128] == [plan.context.batch_size for plan in tried]
    assert (tried[-1], 2) == (fitted.plan, len(fitted.steps))


def test_a_last_failure_keeps_its_cause():
    """At the end of the ladder the engine's own error is the cause."""
    error = path_down(WANTED, room(10**12))[1]
    assert "the engine has not enough" in str(error)
    assert str(error.__cause__) == "the engine has not enough"


def test_without_a_ladder_the_error_is_the_engines():
    """With no step to take nothing is added to what the engine said."""
    plans, error = path_down(WANTED, room(10**12), ())
    assert ([WANTED], "the engine has not enough") == (plans, str(error))


def test_other_errors_pass():
    """What is no lack of memory is raised at once, as it is."""
    problem = ModelLoadError("m.gguf", "damaged")

    def attempt(plan: Plan) -> None:
        raise problem

    with pytest.raises(ModelLoadError) as caught:
        retrying(WANTED, attempt, room(10**12))
    assert problem is caught.value


@pytest.mark.parametrize("kind", [ContextCreationError, ParameterError])
def test_a_step_that_the_engine_refuses_is_passed_by(kind):
    """If the engine does not take what a step made, another step is taken."""

    def attempt(plan: Plan) -> Plan:
        if plan.context.kv_type_v != "f16":
            raise kind("no flash attention here")
        if plan.context.kv_type_k == "f16":
            raise InsufficientMemoryError("out of memory")
        return plan

    made, fitted = retrying(WANTED, attempt, room(10**12), (SmallerCacheType(),))
    assert ("q8_0", "f16") == (made.context.kv_type_k, made.context.kv_type_v)
    assert "refused it: no flash attention here" in fitted.steps[0].sentence
    assert 0 == fitted.steps[0].gained


def test_a_refused_last_step_tells_of_the_shortage():
    """If the last step is refused, the error still tells what was short before it."""
    plans: list[Plan] = []

    def fail(plan: Plan) -> None:
        plans.append(plan)
        if len(plans) > 1:
            raise ParameterError("too small")
        raise InsufficientMemoryError("out of memory")

    with pytest.raises(InsufficientMemoryError, match=r"^out of memory; one step"):
        retrying(WANTED, fail, room(10**12), (ToCpu(),))


def test_a_refusal_of_what_was_asked_for_is_raised():
    """The caller's own mistake is not taken for a lack of memory."""

    def attempt(plan: Plan) -> None:
        raise ParameterError("kv_type_k: no")

    with pytest.raises(ParameterError):
        retrying(WANTED, attempt, room(10**12))


def test_without_an_estimate_steps_are_taken_blindly():
    """If nobody can say what a plan needs, each change counts as a step."""
    plans, error = path_down(Plan(), Room(layers=4), (FewerGpuLayers(), ToCpu()))
    assert ["auto", 3, 2, 1, 0] == [plan.model.gpu_layers for plan in plans]
    assert "an unknown number of bytes" in error.account.steps[0]
