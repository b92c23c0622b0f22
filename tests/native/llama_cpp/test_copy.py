"""A copy of a sequence, before and after the engine has really made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.errors import DecodeError
from llmcore.spi import Batch

if TYPE_CHECKING:
    from conftest import Logits, MakeRun, Run

TEXT = list(range(262, 302))
OTHER = TEXT[::-1]
KINDS = ["llama", "sliding", "recurrent", "hybrid"]
EXACT = {"kv_type_k": "f32", "kv_type_v": "f32", "flash_attention": False}

Check = Callable[["Run", int, list[int]], None]


@pytest.fixture(name="model", params=KINDS)
def _model(
    models: dict[str, LlamaCppModel], request: pytest.FixtureRequest
) -> LlamaCppModel:
    return models[request.param]


@pytest.fixture(name="copied")
def _copied(model: LlamaCppModel, run: MakeRun) -> Run:
    """Sequence 0 holds a text, sequence 1 is a copy of it that nothing was done to."""
    one = run(model, sequences=5, **EXACT)
    one.feed(TEXT)
    one.context.copy(0, 1)
    return one


@pytest.fixture(name="holds")
def _holds(model: LlamaCppModel, run: MakeRun) -> Check:
    """Check that a sequence goes on as one that has evaluated these tokens itself."""

    def holds(one: Run, sequence: int, tokens: list[int]) -> None:
        expected = run(model, **EXACT).feed([*tokens, 300])
        assert one.context.bounds(sequence)[1] == len(tokens) - 1
        close(one.feed([300], sequence, at=len(tokens)), expected)

    return holds


def close(found: Logits, expected: Logits) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_goes_on(copied: Run, holds: Check) -> None:
    """A copy goes on like its source."""
    assert copied.context.bounds(0) == copied.context.bounds(1)
    holds(copied, 1, TEXT)
    holds(copied, 0, TEXT)


def test_in_one_batch(copied: Run, model: LlamaCppModel, run: MakeRun) -> None:
    """Copy and source can go different ways in the very next batch."""
    copied.context.decode(
        Batch([270, 280, 290], [40, 40, 41], [0, 1, 1], [True, False, True])
    )

    close(copied.context.logits(0), run(model, **EXACT).feed([*TEXT, 270]))
    close(copied.context.logits(2), run(model, **EXACT).feed([*TEXT, 280, 290]))


def test_source_cleared(copied: Run, holds: Check) -> None:
    """A copy outlives its source, also where that one holds other text at once."""
    copied.context.clear(0)
    copied.feed(OTHER)

    holds(copied, 1, TEXT)
    holds(copied, 0, OTHER)


def test_source_extended(copied: Run, holds: Check) -> None:
    """What its source evaluates later is not in a copy."""
    copied.feed([290, 291], at=len(TEXT))

    holds(copied, 1, TEXT)


def test_copy_cleared(copied: Run, holds: Check) -> None:
    """A cleared copy is a free sequence, and its source is as before."""
    copied.context.clear(1)
    copied.feed(OTHER, sequence=1)

    holds(copied, 1, OTHER)
    holds(copied, 0, TEXT)


def test_many(copied: Run, holds: Check) -> None:
    """A source can have many copies, and a copy can be a source."""
    copied.context.copy(0, 2)
    copied.context.copy(1, 3)
    copied.context.copy(3, 4)

    for sequence in (4, 3, 2, 1, 0):
        holds(copied, sequence, TEXT)


def test_slot_is_used_again(copied: Run, holds: Check) -> None:
    """A source that became the copy of another leaves its own copy alone."""
    copied.feed(OTHER, sequence=2)
    copied.context.copy(0, 3)
    copied.context.clear(0)
    copied.context.copy(2, 0)

    holds(copied, 3, TEXT)
    holds(copied, 0, OTHER)


def test_saved(copied: Run, model: LlamaCppModel, run: MakeRun, holds: Check) -> None:
    """The bytes of a fresh copy are those of its source."""
    other = run(model, sequences=5, **EXACT)
    other.context.load_state(2, copied.context.save_state(1))

    holds(other, 2, TEXT)
    holds(copied, 1, TEXT)


@pytest.mark.parametrize("loaded", [0, 1])
def test_loaded(
    copied: Run, model: LlamaCppModel, run: MakeRun, holds: Check, loaded: int
) -> None:
    """State loaded into a fresh copy, or into its source, changes only that one."""
    other = run(model, sequences=5, **EXACT)
    other.feed(OTHER)
    copied.context.load_state(loaded, other.context.save_state(0))

    holds(copied, loaded, OTHER)
    holds(copied, 1 - loaded, TEXT)


def test_loaded_after_clear(
    copied: Run, model: LlamaCppModel, run: MakeRun, holds: Check
) -> None:
    """A copy that was cleared, with the memory of all, does not come back later."""
    other = run(model, sequences=5, **EXACT)
    other.feed(OTHER)
    copied.context.clear(data=True)
    copied.context.load_state(1, other.context.save_state(0))

    holds(copied, 1, OTHER)


@pytest.mark.parametrize("position", [1, 99])
def test_failed_decode(
    copied: Run, model: LlamaCppModel, run: MakeRun, holds: Check, position: int
) -> None:
    """A batch of others that is aborted, or refused at once, costs no copy."""
    copied.feed([262], sequence=2)
    copied.context.copy(0, 3)
    copied.context.abort(True)
    with pytest.raises(DecodeError):
        copied.feed([263], sequence=2, at=position)
    copied.context.abort(False)

    other = run(model, sequences=5, **EXACT)
    other.context.load_state(0, copied.context.save_state(3))
    holds(other, 0, TEXT)
    holds(copied, 3, TEXT)


def test_aborted_itself(copied: Run, model: LlamaCppModel, holds: Check) -> None:
    """A copy whose first batch is aborted says what it still holds."""
    copied.context.abort(True)
    with pytest.raises(DecodeError):
        copied.feed([290], sequence=1, at=len(TEXT))
    copied.context.abort(False)

    holds(copied, 1, TEXT[: copied.context.bounds(1)[1] + 1])
    holds(copied, 0, TEXT)


def test_empty(model: LlamaCppModel, run: MakeRun, holds: Check) -> None:
    """A copy of an empty sequence is empty."""
    one = run(model, sequences=2, **EXACT)
    one.context.copy(0, 1)
    assert one.context.bounds(1) == (-1, -1)
    one.feed(TEXT, sequence=1)

    holds(one, 1, TEXT)


def test_in_a_large_cache(model: LlamaCppModel, run: MakeRun, holds: Check) -> None:
    """A few tokens are copied in a cache for many."""
    one = run(model, sequences=3, context_size=1024, **EXACT)
    one.feed(TEXT)
    one.context.copy(0, 1)
    one.context.clear(0)

    holds(one, 1, TEXT)


def test_short_copy_of_a_copy(model: LlamaCppModel, run: MakeRun, holds: Check) -> None:
    """A short copy made while a long one is pending is right, from and to its place."""
    one = run(model, sequences=4, context_size=256, **EXACT)
    one.feed(TEXT)
    one.context.copy(0, 1)
    if one.context.remove(1, 20):
        one.context.copy(1, 2)
        holds(one, 2, TEXT[:20])
    one.context.clear(1)
    one.feed(OTHER[:8], sequence=3)
    one.context.copy(0, 2)
    one.context.clear(2)
    one.context.copy(3, 2)

    holds(one, 2, OTHER[:8])
    holds(one, 0, TEXT)


@pytest.mark.parametrize("end", [0, 1])
def test_end_removed(models: dict[str, LlamaCppModel], run: MakeRun, end: int) -> None:
    """Copy and source can be cut independently of each other."""
    one = run(models["llama"], sequences=2, **EXACT)
    one.feed(TEXT)
    one.context.copy(0, 1)
    assert one.context.remove(end, 30)

    for sequence, tokens in ((end, TEXT[:30]), (1 - end, TEXT)):
        expected = run(models["llama"], **EXACT).feed([*tokens, 300])
        close(one.feed([300], sequence, at=len(tokens)), expected)


@pytest.mark.parametrize("shifted", [0, 1])
def test_shifted(models: dict[str, LlamaCppModel], run: MakeRun, shifted: int) -> None:
    """A shift of a fresh copy, or of its source, moves only that one."""
    one = run(models["llama"], sequences=2, **EXACT)
    one.feed(TEXT)
    one.context.copy(0, 1)
    one.context.shift(shifted, 0, len(TEXT), 7)

    expected = run(models["llama"], **EXACT).feed([*TEXT, 300])
    close(one.feed([300], shifted, at=len(TEXT) + 7), expected)
    close(one.feed([300], 1 - shifted, at=len(TEXT)), expected)


def test_full(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """Full sequences are copied too, and saved before anything is evaluated."""
    one, other = (run(models["llama"], sequences=2, **EXACT) for _ in range(2))
    text = TEXT * 6 + OTHER[:15]
    one.feed([*text, 299])
    one.context.copy(0, 1)
    other.context.load_state(0, one.context.save_state(1))
    assert one.context.bounds(1) == (0, 255)
    assert other.context.remove(0, 255)

    expected = run(models["llama"], **EXACT).feed([*text, 300])
    close(other.feed([300], at=255), expected)
