"""Who disposes, and what nobody disposed: lifecycle.md."""

from __future__ import annotations

import gc
import warnings

import anyio
import pytest

from llmcore import LLM, Context, Llama, Model, Scope
from llmcore.errors import NoSequenceLeftError
from llmcore_conformance import clause
from llmcore_conformance.checks import assert_becomes, label
from llmcore_conformance.ledger import RecordingBackend, SeamLedger
from llmcore_conformance.target import Target


@clause("dispose.context-manager")
def test_leaving_the_block_disposes(model: Model, context: Context) -> None:
    """A block that ends well disposes its resource, and a nested one first."""
    with model, context:
        pass
    assert context.disposed
    assert model.disposed


@clause("dispose.context-manager")
def test_an_exception_disposes_and_passes(context: Context) -> None:
    """An exception that leaves the block is not swallowed, and disposes too."""
    with pytest.raises(KeyError), context:
        raise KeyError("of the caller")
    assert context.disposed, "an exception left the block, and it is still alive"


@clause("dispose.context-manager")
def test_an_async_block_disposes(context: Context) -> None:
    """``async with`` does the same."""

    async def main() -> None:
        with pytest.raises(KeyError):
            async with context:
                raise KeyError("of the caller")

    anyio.run(main)
    assert context.disposed


@clause("dispose.owner")
def test_what_was_moved_outlives_its_block(context: Context) -> None:
    """A resource moved out of its block lives until its new owner is disposed."""
    scope = Scope()
    with context:
        scope.own(context)
    alive = not context.disposed
    scope.dispose()
    assert alive, "the former owner disposed it"
    assert context.disposed, "the new owner did not dispose it"


@clause("dispose.owner")
def test_what_was_released_outlives_its_scope(context: Context) -> None:
    """A resource released from a scope goes back to its parent."""
    with Scope() as scope:
        scope.own(context)
        scope.release(context)
    assert not context.disposed
    context.model.dispose()
    assert context.disposed


@clause("dispose.lease")
def test_a_lease_keeps_a_resource_from_being_unloaded(model: Model) -> None:
    """dispose_if_unused leaves a leased model alone, and takes it afterwards."""
    with model.lease():
        taken = model.dispose_if_unused()
    assert not taken, "it was disposed while a lease was held"
    assert model.dispose_if_unused()
    assert model.disposed


@clause("dispose.lease-owner")
def test_dispose_wins_over_a_lease(model: Model, ledger: SeamLedger) -> None:
    """dispose() of a leased model frees it."""
    with model.lease():
        model.dispose()
        live = ledger.live
    assert "model" not in live, "the lease kept the memory"


@clause("dispose.slot-back")
def test_a_place_can_be_taken_at_once(
    context: Context, prompt_tokens: list[int]
) -> None:
    """The one place of a context serves many sequences, used or in use."""
    for _ in range(3):
        try:
            sequence = context.get_sequence()
        except NoSequenceLeftError as error:
            pytest.fail(f"the place did not come back: {error}")
        stream = sequence.generate(prompt_tokens)
        next(stream)
        sequence.dispose()


@clause("dispose.facade-close")
def test_close_keeps_the_model(target: Target, ledger: SeamLedger) -> None:
    """After LLM.close the model lives, the context does not, and calling works."""
    backend = RecordingBackend(target.create(), target.describe(), ledger)
    with LLM(target.model_path, backend=backend) as llm:
        llm("Once upon a time", max_tokens=2)
        llm.close()
        assert ledger.live.get("model") == 1, "close() freed the model"
        assert "context" not in ledger.live, "close() kept the context"
        llm("Once upon a time", max_tokens=2)
        assert ledger.calls["load"] == 1, "the model was loaded again"


@clause("dispose.forgotten")
def test_a_forgotten_model_is_freed(
    target: Target, llama: Llama, ledger: SeamLedger, patience: float
) -> None:
    """A model and a context that nobody refers to are freed by the collector."""
    target.load(llama).create_context(context_size=64, threads=1)
    gc.collect()
    assert_becomes(
        lambda: not ledger.live.keys() & {"model", "context"},
        patience,
        "the forgotten model is freed",
    )


@clause("dispose.forgotten-warns")
def test_what_is_forgotten_is_named(patience: float) -> None:
    """The ResourceWarning has the label, and the line of the program that made it."""
    program = compile("\n\nname = label(Scope())", "program.py", "exec")
    names = {"__name__": "program", "Scope": Scope, "label": label}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(program, names)
        gc.collect()
        assert_becomes(lambda: caught, patience, "a warning")
    warning = caught[0]
    assert warning.category is ResourceWarning
    assert str(names["name"]) in str(warning.message), f"who is {warning.message}?"
    assert (warning.filename, warning.lineno) == ("program.py", 3)
