"""Capabilities, state and embeddings: capabilities.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llmcore import Llama, Model, SamplingParams, Sequence
from llmcore.errors import (
    CapabilityError,
    DecodeAbortedError,
    LlmcoreError,
    StateError,
)
from llmcore.values import BackendInfo, Capability
from llmcore_conformance import clause
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import (
    SIZE,
    FreshAnswers,
    Seam,
    answer,
    narrowed,
)
from llmcore_conformance.target import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmcore.spi import BackendContext

SAMPLING = {Capability.LOGITS, Capability.NATIVE_SAMPLING}
EMULATED = {Capability.COPY, Capability.PARTIAL_REMOVE}


@pytest.fixture
def prompt(seam: Seam) -> list[int]:
    """A prompt of at least eight tokens, for the seam."""
    return (seam.model.tokenize(b"Once upon a time there was") * 2)[:20]


@pytest.fixture
def expected(seam: Seam, prompt: list[int]) -> NDArray[np.float32]:
    """The logits after ``prompt`` in a context of its own, which is closed already."""
    context = seam.context()
    logits = seam.feed(context, prompt)
    seam.close_context(context)
    return logits


def close_to(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    """Whether two vectors are equal within the rounding of an engine."""
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-2, atol=1e-2)


# -- what is declared, and what is not -------------------------------------------------


@clause("cap.subset")
def test_a_model_can_do_no_more_than_its_backend_declares(
    model: Model, backend_info: BackendInfo
) -> None:
    """Nothing that the model declares is missing in the backend's declaration."""
    excess = model.capabilities - backend_info.capabilities
    assert not excess, f"declared by the model only: {sorted(excess)}"


@pytest.fixture
def bare_model(target: Target) -> Iterator[Model]:
    """The model under test, without any capability."""
    bare = narrowed(target, frozenset())
    with bare.open() as llama:
        yield bare.load(llama)


@clause("cap.undeclared")
def test_a_context_of_an_undeclared_kind_is_refused(bare_model: Model) -> None:
    """Several sequences, and embeddings, need their capability."""
    for fields in ({"sequences": 2}, {"embeddings": True}):
        with pytest.raises(CapabilityError):
            bare_model.create_context(context_size=SIZE, **fields)


@clause("cap.undeclared")
def test_undeclared_logits_are_refused(
    bare_model: Model, prompt_tokens: list[int]
) -> None:
    """Neither reading nor sampling invents any."""
    context = bare_model.create_context(context_size=SIZE, threads=1)
    sequence = context.get_sequence()
    sequence.evaluate(prompt_tokens)
    with pytest.raises(CapabilityError):
        _ = sequence.logits
    with pytest.raises(CapabilityError):
        sequence.sample()


@clause("cap.undeclared")
def test_undeclared_log_probabilities_are_refused(
    target: Target, prompt_tokens: list[int]
) -> None:
    """An engine that shows no logits tells none, and no answer comes without them."""
    narrow = narrowed(target, frozenset({Capability.NATIVE_SAMPLING}))
    with narrow.open() as llama:
        context = narrow.load(llama).create_context(context_size=SIZE, threads=1)
        with pytest.raises(CapabilityError):
            _ = context.get_sequence().generate(prompt_tokens, logprobs=1).result


@clause("cap.undeclared")
def test_layers_for_an_undeclared_gpu_are_refused(
    target: Target, ledger: SeamLedger
) -> None:
    """The engine is not even asked, or it could put them elsewhere."""
    bare = narrowed(target, frozenset())
    with bare.open(ledger) as llama, pytest.raises(CapabilityError):
        llama.load_model(target.model_path, gpu_layers=1)
    assert not ledger.order("load")


@clause("cap.undeclared")
def test_layers_for_a_gpu_that_is_not_there_are_refused(
    target: Target, llama: Llama, model: Model
) -> None:
    """The build, or this model on it, says that it has none: it takes no layer."""
    if Capability.GPU not in model.capabilities:
        with pytest.raises(CapabilityError):
            llama.load_model(target.model_path, gpu_layers=1)


@pytest.fixture
def undeclared() -> set[Capability]:
    """What `narrow_model` does not declare."""
    return set(EMULATED)


@pytest.fixture
def narrow_model(
    target: Target, ledger: SeamLedger, undeclared: set[Capability]
) -> Iterator[Model]:
    """The model under test without some capabilities; its seam is recorded."""
    narrow = narrowed(target, frozenset(Capability) - undeclared)
    with narrow.open(ledger) as llama:
        yield narrow.load(llama)


@clause("cap.not-called")
def test_core_calls_nothing_that_is_not_declared(
    target: Target, ledger: SeamLedger, prompt_tokens: list[int]
) -> None:
    """A backend that can only evaluate and choose tokens is asked for nothing else."""
    sampling = SAMPLING & target.describe().capabilities
    one = Capability.LOGITS if Capability.LOGITS in sampling else next(iter(sampling))
    narrow = narrowed(target, frozenset({one, Capability.MULTI_SEQUENCE}))
    with narrow.open(ledger) as llama:
        model = narrow.load(llama)
        sequence = model.create_context(context_size=SIZE, threads=1).get_sequence()
        for prompt in (prompt_tokens, prompt_tokens[:4], prompt_tokens[::-1]):
            with suppress(LlmcoreError):
                answer(sequence, prompt, 2)
        with suppress(LlmcoreError):
            sequence.truncate(2)
        with suppress(LlmcoreError):
            sequence.fork()
        stream = sequence.generate(prompt_tokens)
        next(stream)
        stream.close()
    forbidden = {"remove", "copy", "shift", "save_state", "load_state", "embedding"}
    forbidden |= {"abort"}
    forbidden |= {"sample"} if one is Capability.LOGITS else {"logits"}
    called = set(ledger.order(*forbidden))
    assert not called, f"called, but not declared: {sorted(called)}"


@clause("cap.emulated")
def test_a_fork_without_copy_is_still_a_copy(
    narrow_model: Model, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """The tokens are evaluated again, and answered as new."""
    several = Capability.MULTI_SEQUENCE in narrow_model.capabilities
    context = narrow_model.create_context(
        context_size=SIZE, sequences=2 if several else 1, threads=1
    )
    sequence = context.get_sequence()
    sequence.evaluate(prompt_tokens[:-1])
    twin = sequence.fork() if several else sequence
    assert twin.tokens == prompt_tokens[:-1]
    assert answer(twin, prompt_tokens) == as_new(prompt_tokens)


@clause("cap.emulated")
def test_a_cache_that_cannot_drop_a_part_is_emptied(
    narrow_model: Model, prompt_tokens: list[int], as_new: FreshAnswers
) -> None:
    """Truncating says that nothing was kept, and what follows is answered as new."""
    context = narrow_model.create_context(context_size=SIZE, threads=1)
    sequence = context.get_sequence()
    sequence.evaluate(prompt_tokens)
    assert sequence.truncate(3) == 0
    assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)


# -- probes of what is declared --------------------------------------------------------


@clause("cap.logits")
def test_there_is_a_logit_for_each_token(seam: Seam, prompt: list[int]) -> None:
    """The array has the size of the vocabulary, 32-bit, and no NaN in it."""
    logits = seam.feed(seam.context(), prompt)
    assert logits.shape == (seam.model.info.vocab_size,)
    assert logits.dtype == np.float32
    assert not np.isnan(logits).any()
    assert np.isfinite(logits.max())


@clause("cap.logits")
def test_logits_stay_what_they_are(
    sequence: Sequence, prompt_tokens: list[int]
) -> None:
    """Evaluating more does not change an array that was handed out."""
    sequence.evaluate(prompt_tokens)
    logits = sequence.logits
    before = logits.copy()
    sequence.evaluate(prompt_tokens)
    _ = sequence.logits
    assert np.array_equal(logits, before)


@clause("cap.native-sampling")
def test_a_greedy_native_sampler_takes_the_largest_logit(
    seam: Seam, prompt: list[int]
) -> None:
    """Its token has the largest logit, or is that of another seed."""
    context = seam.context()
    sampler = context.create_sampler(SamplingParams(), 0)
    if sampler is None:  # the engine cannot express it, and core samples
        return
    expected = seam.feed(context, prompt)
    drawn = context.sample(len(prompt) - 1, sampler)
    sampler.close()
    if expected.size > 1:
        assert expected[drawn] == expected.max()
    else:
        assert drawn == expected[0]


@clause("cap.partial-remove")
def test_the_end_of_a_cache_can_be_removed(
    seam: Seam, prompt: list[int], expected: NDArray[np.float32]
) -> None:
    """The positions say what was removed, and the engine goes on from there."""
    context, half = seam.context(), len(prompt) // 2
    seam.feed(context, prompt)
    if not context.remove(0, half):
        assert context.bounds(0)[1] == len(prompt) - 1, "False means unchanged"
        return
    assert context.bounds(0) == (0, half - 1), "True means removed"
    assert close_to(seam.feed(context, prompt[half:]), expected)


@clause("cap.shift")
def test_positions_can_be_moved(seam: Seam, prompt: list[int]) -> None:
    """Two tokens are removed, the rest moves up, and the engine goes on."""
    context, count = seam.context(), len(prompt)
    seam.feed(context, prompt)
    assert context.remove(0, 2, 4), "a middle part cannot be removed"
    context.shift(0, 4, count, -2)
    assert context.bounds(0) == (0, count - 3)
    seam.feed(context, prompt[:2])
    assert context.bounds(0) == (0, count - 1)


@clause("cap.abort")
def test_an_evaluation_can_be_aborted(
    seam: Seam, prompt: list[int], expected: NDArray[np.float32]
) -> None:
    """Nothing is evaluated while abort is on, and everything when it is off again."""
    context = seam.context()
    context.abort(True)
    with pytest.raises(DecodeAbortedError):
        seam.feed(context, prompt)
    context.abort(False)
    context.clear(0)
    assert close_to(seam.feed(context, prompt), expected)


# -- state -----------------------------------------------------------------------------


def assert_restored(
    seam: Seam,
    context: BackendContext,
    prompt: list[int],
    expected: NDArray[np.float32],
) -> None:
    """The sequence holds all of ``prompt`` but its last token."""
    assert context.bounds(0)[1] == len(prompt) - 2
    assert close_to(seam.feed(context, prompt[-1:]), expected)


@clause("state.round-trip")
def test_loading_a_state_goes_back_to_it(
    seam: Seam, prompt: list[int], expected: NDArray[np.float32]
) -> None:
    """Positions and logits are those at the time of saving, whatever came after."""
    context = seam.context()
    seam.feed(context, prompt[:-1])
    state = context.save_state(0)
    seam.feed(context, prompt[::-1])
    context.load_state(0, state)
    assert_restored(seam, context, prompt, expected)


@clause("state.damaged")
@pytest.mark.parametrize("damage", ["empty", "foreign", "cut", "flipped"])
def test_a_state_that_does_not_fit_is_refused(
    seam: Seam, prompt: list[int], expected: NDArray[np.float32], damage: str
) -> None:
    """The error is a StateError, and the context works on."""
    context = seam.context()
    seam.feed(context, prompt[:-1])
    state = bytes(context.save_state(0))
    middle = len(state) // 2
    damaged = {
        "empty": b"",
        "foreign": b"no state of any model" * 9,
        "cut": state[:middle],
        "flipped": state[:middle] + bytes([state[middle] ^ 255]) + state[middle + 1 :],
    }[damage]
    with pytest.raises(StateError):
        context.load_state(0, damaged)
    context.load_state(0, state)
    assert_restored(seam, context, prompt, expected)


@clause("state.owned")
def test_a_state_outlives_its_context(
    seam: Seam, prompt: list[int], expected: NDArray[np.float32]
) -> None:
    """The bytes are the same after closing, and another context takes them."""
    context = seam.context()
    seam.feed(context, prompt[:-1])
    state = context.save_state(0)
    before = bytes(state)
    seam.close_context(context)
    assert bytes(state) == before, "the state was a view into the closed context"
    other = seam.context()
    other.load_state(0, state)
    assert_restored(seam, other, prompt, expected)


# -- embeddings ------------------------------------------------------------------------


@clause("embed.shape")
@pytest.mark.parametrize("text", ["a", "A longer text, with two clauses."])
def test_a_vector_has_the_length_that_the_model_says(
    embedding_model: Model, text: str
) -> None:
    """It is finite, however long the text is."""
    context = embedding_model.create_context(
        context_size=SIZE, embeddings=True, threads=1
    )
    vector = context.embed(text)
    assert vector.shape == (embedding_model.info.embedding_size,)
    assert np.isfinite(vector).all()


@clause("embed.repeatable")
def test_a_text_always_has_the_same_vector(embedding_model: Model) -> None:
    """Another text in between does not show."""
    context = embedding_model.create_context(
        context_size=SIZE, embeddings=True, threads=1
    )
    first = context.embed("The same text.")
    context.embed("Something else altogether")
    assert close_to(context.embed("The same text."), first)


@clause("embed.context")
def test_embedding_needs_a_context_for_it(embedding_model: Model) -> None:
    """A context for generation refuses."""
    with pytest.raises(CapabilityError):
        embedding_model.create_context(context_size=SIZE).embed("text")
