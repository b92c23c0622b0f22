"""Disposing, and using what is disposed: lifecycle.md."""

from __future__ import annotations

import copy
import gc
import pickle
from contextlib import suppress

import pytest

from llmcore import ChatSession, Context, Llama, Model, Resource, Sequence
from llmcore.errors import DisposedError, DisposeError, DisposeTimeoutError
from llmcore.testing import ViolationKind
from llmcore_conformance import clause
from llmcore_conformance.checks import assert_none, label
from llmcore_conformance.fixtures import StartGeneration
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.operations import operations
from llmcore_conformance.target import Target

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
CLOSES = ("close_context", "close_model", "close_backend")


@pytest.fixture
def chat(sequence: Sequence) -> ChatSession:
    """A conversation on `sequence`."""
    return ChatSession(sequence, chat_template=TEMPLATE)


@pytest.fixture
def resources(
    chat: ChatSession, sequence: Sequence, context: Context, model: Model, llama: Llama
) -> list[Resource]:
    """One of each kind, children first."""
    return [chat, sequence, context, model, llama]


@clause("dispose.idempotent")
def test_a_second_dispose_has_no_effect(
    resources: list[Resource], ledger: SeamLedger
) -> None:
    """Each resource can be disposed twice, and its memory is freed once."""
    for resource in resources:
        resource.dispose()
        resource.dispose()
    cause = "the teardown runs again on the second dispose()"
    assert_none(ledger, ViolationKind.DOUBLE_FREE, cause=cause)


@clause("dispose.freed-on-return")
def test_memory_is_free_when_dispose_returns(
    llama: Llama, sequence: Sequence, prompt_tokens: list[int], ledger: SeamLedger
) -> None:
    """With the collector off and a stream open, nothing native is left."""
    gc.disable()
    try:
        stream = sequence.generate(prompt_tokens)
        next(stream)
        llama.dispose()
        live = ledger.live
    finally:
        gc.enable()
    assert not live, f"still alive: {live}; likely cause: something is freed later"


@clause("dispose.children-first")
def test_children_are_freed_before_parents_and_newest_first(
    llama: Llama, model: Model, context: Context, ledger: SeamLedger
) -> None:
    """Two contexts go, the second one first, then their model, then its engine."""
    _second = model.create_context(context_size=64, threads=1)
    llama.dispose()
    freed = [(event.op, event.id) for event in ledger.events if event.op in CLOSES]
    kinds = [op for op, _ in freed]
    assert kinds == ["close_context", *CLOSES], f"the order was {freed}"
    assert freed[0][1] > freed[1][1], f"the older context went first: {freed}"


@clause("dispose.cascade")
def test_the_whole_subtree_is_disposed_at_once(
    resources: list[Resource],
    sequence: Sequence,
    ledger: SeamLedger,
    running_generation: StartGeneration,
) -> None:
    """While a call is held inside the engine, all that goes with it is disposed."""
    with ledger.gate("decode", abortable=False) as gate:
        running_generation(sequence)
        gate.wait_entered()
        with suppress(DisposeTimeoutError):
            resources[-1].dispose(timeout=0)
        alive = [resource for resource in resources if not resource.disposed]
    assert not alive, f"not disposed: {alive}; likely cause: marked only when freed"


@clause("dispose.always-releases")
def test_a_failing_teardown_does_not_stop_the_others(
    model: Model, context: Context, llama: Llama, ledger: SeamLedger
) -> None:
    """All is freed, and one DisposeError holds what the engine raised."""
    _second = model.create_context(context_size=64, threads=1)
    boom = RuntimeError("the engine failed to free")
    ledger.fail("close_context", boom)
    with pytest.raises(DisposeError) as caught:
        llama.dispose()
    assert caught.value.subgroup(lambda error: error is boom), "the cause is lost"
    assert not ledger.live, f"still alive: {ledger.live}; it stopped at the error"


@clause("dispose.reopen")
def test_a_model_loads_again_after_it_was_disposed(
    target: Target, llama: Llama, sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """The second one answers what the first one did."""
    first = sequence.generate(prompt_tokens, max_tokens=4).result.tokens
    sequence.context.model.dispose()
    with target.load(llama) as model:
        again = model.create_context(context_size=256, threads=1).get_sequence()
        second = again.generate(prompt_tokens, max_tokens=4).result.tokens
    assert second == first, "likely cause: something of the old model was kept"


@clause("dispose.use-after")
def test_every_operation_is_refused(
    resources: list[Resource], ledger: SeamLedger
) -> None:
    """Whatever is public on a disposed object raises DisposedError, untouched."""
    resources[-1].dispose()
    calls = ledger.calls
    for resource in resources:
        for name, operate in operations(resource):
            try:
                operate()
            except DisposedError:
                continue
            except Exception as error:
                seen = f"raised {error!r}"
            else:
                seen = "worked"
            pytest.fail(f"{type(resource).__name__}.{name} {seen} after dispose()")
    assert ledger.calls == calls, "a refused operation reached the engine"


@clause("dispose.names-cause")
def test_the_error_names_the_object_and_the_disposed_ancestor(
    sequence: Sequence, model: Model
) -> None:
    """The message has the labels of the sequence used and of the model disposed."""
    names = label(sequence), label(model)
    model.dispose()
    with pytest.raises(DisposedError) as caught:
        _ = sequence.position
    missing = [name for name in names if name not in str(caught.value)]
    assert not missing, f"{caught.value} does not name {missing}"


@clause("dispose.allowed-after")
def test_harmless_things_go_on_working(resources: list[Resource]) -> None:
    """What clean-up code does to a disposed object raises nothing."""
    model = resources[3]
    assert isinstance(model, Model)
    for resource in resources:
        try:
            with resource:
                resource.dispose()
                assert resource.disposed
                assert "DISPOSED" in repr(resource), "repr() hides the state"
        except DisposedError as error:
            pytest.fail(f"refused on a disposed {type(resource).__name__}: {error}")
    assert model.info.vocab_size > 0
    assert model.capabilities == model.info.capabilities


@clause("dispose.no-copy")
def test_resources_cannot_be_copied(resources: list[Resource]) -> None:
    """Copying, deep copying and pickling raise TypeError."""
    for resource in resources:
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            try:
                duplicate(resource)
            except TypeError:
                continue
            pytest.fail(f"{duplicate.__name__} of {resource!r} worked")
