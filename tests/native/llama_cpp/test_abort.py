"""Stopping an evaluation from another thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.errors import DecodeAbortedError

if TYPE_CHECKING:
    from conftest import MakeRun


def test_before(llama: LlamaCppModel, run: MakeRun) -> None:
    """While aborted, nothing is evaluated; allowed again, all is as before."""
    context = run(llama)
    context.context.abort(True)
    with pytest.raises(DecodeAbortedError, match="code 2"):
        context.feed([262, 263])
    assert context.context.bounds(0) == (-1, -1)

    context.context.abort(False)
    np.testing.assert_array_equal(run(llama).feed([262]), context.feed([262]))


def test_during(smol: LlamaCppModel, run: MakeRun) -> None:
    """A long evaluation ends early, and the bounds tell what of it was done."""
    context = run(smol, context_size=2048, batch_size=2048, micro_batch_size=64)
    entered = Event()

    def work() -> None:
        entered.set()
        context.feed([504] * 2000)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        entered.wait()
        context.context.abort(True)
        with pytest.raises(DecodeAbortedError):
            running.result()
    assert context.context.bounds(0)[1] < 1999


def test_shift_is_not_aborted(llama: LlamaCppModel, run: MakeRun) -> None:
    """A shift is never left half done."""
    text = list(range(262, 302))
    context = run(llama, kv_type_k="f32")
    context.feed(text)
    context.context.abort(True)
    context.context.shift(0, 0, len(text), 7)
    context.context.abort(False)

    np.testing.assert_allclose(
        context.feed([300], at=len(text) + 7),
        run(llama, kv_type_k="f32").feed([*text, 300]),
        rtol=0.01,
        atol=0.01,
    )


def test_recurrent(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """A recurrent state that an abort may have damaged is gone, others are not."""
    context = run(models["recurrent"], sequences=2)
    context.feed([262, 263])
    context.feed([262, 263], sequence=1)
    context.context.abort(True)
    with pytest.raises(DecodeAbortedError):
        context.feed([264], at=2)

    assert context.context.bounds(0) == (-1, -1)
    assert context.context.bounds(1) == (1, 1)
