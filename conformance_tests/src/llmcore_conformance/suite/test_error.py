"""Errors: errors.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmcore import Context, Llama, Model, Resource, SamplingParams, Sequence
from llmcore.errors import (
    BackendCrashedError,
    BackendError,
    BrokenError,
    DecodeError,
    InsufficientMemoryError,
    LlmcoreError,
)
from llmcore_conformance import clause
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import SIZE, answer, endless
from llmcore_conformance.target import Target


class ForeignError(Exception):
    """What no part of llmcore knows."""


@pytest.fixture
def uses(
    target: Target,
    llama: Llama,
    model: Model,
    sequence: Sequence,
    prompt_tokens: list[int],
) -> dict[str, Callable[[], object]]:
    """A public use of an object for each operation of the seam."""
    return {
        "devices": llama.devices,
        "load": lambda: target.load(llama),
        "tokenize": lambda: model.tokenize("text"),
        "piece": lambda: model.detokenize(prompt_tokens),
        "create_context": lambda: model.create_context(context_size=SIZE),
        "decode": lambda: sequence.evaluate(prompt_tokens),
        "memory": sequence.context.memory_info,
    }


@clause("error.mapped")
@pytest.mark.parametrize(
    "op",
    ["devices", "load", "tokenize", "piece", "create_context", "decode", "memory"],
)
def test_a_foreign_exception_becomes_a_backend_error(
    uses: dict[str, Callable[[], object]], ledger: SeamLedger, op: str
) -> None:
    """It is the cause of what is raised, and the next call is fine."""
    foreign = ForeignError("something native")
    ledger.fail(op, foreign)
    with pytest.raises(BackendError) as caught:
        uses[op]()
    assert caught.value.__cause__ is foreign, "the original exception was dropped"
    uses[op]()


@clause("error.own-kept")
def test_an_error_of_the_seam_arrives_as_it_is(
    sequence: Sequence, prompt_tokens: list[int], ledger: SeamLedger
) -> None:
    """What the backend raises on purpose is what the caller gets."""
    error = InsufficientMemoryError("no memory for the graph")
    ledger.fail("decode", error)
    with pytest.raises(LlmcoreError) as caught:
        sequence.evaluate(prompt_tokens)
    assert caught.value is error


@clause("error.crashed")
def test_an_engine_that_died_breaks_all_that_lives_on_it(
    llama: Llama,
    model: Model,
    context: Context,
    sequence: Sequence,
    prompt_tokens: list[int],
    ledger: SeamLedger,
) -> None:
    """Each object raises BrokenError, and can be disposed."""
    ledger.fail("decode", BackendCrashedError("the engine died"))
    with pytest.raises(BackendCrashedError):
        sequence.evaluate(prompt_tokens)
    for use in (
        llama.devices,
        lambda: model.tokenize("text"),
        context.memory_info,
        lambda: sequence.evaluate(prompt_tokens),
    ):
        with pytest.raises(BrokenError):
            use()
    llama.dispose()
    assert sequence.disposed
    assert llama.disposed


@clause("error.all-or-nothing")
def test_an_input_that_failed_half_way_is_not_held(
    model: Model, prompt_tokens: list[int], ledger: SeamLedger
) -> None:
    """The batches before the one that failed are taken back."""
    context = model.create_context(
        context_size=SIZE, batch_size=8, micro_batch_size=8, threads=1
    )
    sequence = context.get_sequence()
    sequence.evaluate(prompt_tokens[:3])
    ledger.fail("decode", DecodeError, nth=2)
    with pytest.raises(DecodeError):
        sequence.evaluate(prompt_tokens[:1] * (2 * context.params.batch_size))
    assert sequence.tokens in (prompt_tokens[:3], [])


def name_of(resource: Resource) -> str:
    """How `repr` calls it, without class and state."""
    return repr(resource).split(" ", 1)[1].rsplit(" ", 1)[0]


def said(use: Callable[[], object]) -> str:
    """The message of the error that ``use`` raises, or nothing."""
    try:
        use()
    except LlmcoreError as error:
        return str(error)
    return ""


def assert_named(resource: Resource, use: Callable[[], object]) -> None:
    """If ``use`` raises one of our errors, its message has the resource's name."""
    message = said(use)
    assert not message or name_of(resource) in message, f"the message was: {message}"


@clause("error.named")
def test_a_context_without_sequences_is_named(context: Context) -> None:
    """The message says which context has none left."""
    taken = [context.get_sequence() for _ in range(context.sequences_left)]
    assert_named(context, context.get_sequence)
    assert all(not sequence.disposed for sequence in taken)


@clause("error.named")
def test_a_sequence_at_work_is_named(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """The messages say which sequence is busy, and which was cancelled."""
    stream = sequence.generate(prompt_tokens, endless(sequence.context.model))
    assert_named(sequence, lambda: sequence.evaluate(prompt_tokens))
    stream.cancel()
    assert_named(sequence, lambda: next(stream, None))


BAD_USES: dict[str, Callable[[Sequence], object]] = {
    "empty prompt": lambda s: s.generate([]),
    "no tokens wanted": lambda s: s.generate([1], max_tokens=0),
    "empty stop string": lambda s: s.generate([1], stop=""),
    "negative length": lambda s: s.truncate(-1),
    "unknown field": lambda s: s.generate([1], heat=1.0),
    "bad temperature": lambda s: s.generate([1], SamplingParams(temperature=-1.0)),
    "text for tokens": lambda s: s.evaluate("text"),  # type: ignore[arg-type]
    "fractional token": lambda s: s.evaluate([0.5]),  # type: ignore[list-item]
    "logits of nothing": lambda s: s.logits,
}


@clause("error.typed")
@pytest.mark.parametrize("use", BAD_USES)
def test_bad_use_raises_an_error_that_says_so(
    sequence: Sequence, prompt_tokens: list[int], use: str
) -> None:
    """The type is one of ours or says that an argument is bad; the sequence works."""
    with pytest.raises((LlmcoreError, ValueError, TypeError)):
        BAD_USES[use](sequence)
    assert len(answer(sequence, prompt_tokens, 2)) == 2
