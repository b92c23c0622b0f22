"""The ledger sees every broken promise about lives and turns, and nothing else."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from typing import Any

import pytest

from llmcore.errors import BackendError, DecodeError
from llmcore.spi import Batch
from llmcore.testing import NullScript, null_backend
from llmcore.values import ContextParams, ModelParams, SamplingParams

from .conftest import MakeEngine, Start, batch

TEN = list(range(97, 107))
GREEDY = SamplingParams()


class TestAccount:
    def test_clean(self, engine: MakeEngine) -> None:
        """A life in the right order leaves nothing and breaks nothing."""
        one = engine()
        one.write(TEN, 3)
        sampler = one.context.create_sampler(GREEDY, 1)
        sampler.accept(one.context.sample(0, sampler))
        assert one.ledger.live == {"backend": 1, "model": 1, "context": 1, "sampler": 1}
        sampler.close()
        one.close()
        assert (
            one.ledger.violations,
            one.ledger.live,
            one.ledger.live_bytes,
        ) == ([], {}, 0)

    def test_calls_and_events(self, engine: MakeEngine) -> None:
        """Every call is counted and listed in the order in which it came."""
        one = engine()
        one.write(TEN, 2)
        one.close()
        assert one.ledger.calls["decode"] == 2
        assert one.ledger.calls["remove"] == 0
        assert one.ledger.events == [
            ("load", "backend", 1),
            ("create_context", "model", 2),
            ("decode", "context", 3),
            ("logits", "context", 3),
            ("decode", "context", 3),
            ("logits", "context", 3),
            ("close_context", "context", 3),
            ("close_model", "model", 2),
            ("close_backend", "backend", 1),
        ]

    def test_batches(self, engine: MakeEngine) -> None:
        """Each batch is kept as it came, whole, also if it fails."""
        one = engine()
        tokens = [1, 2, 3]
        one.context.decode(Batch(tokens, [0, 0, 1], [0, 1, 1], [False, True, True]))
        one.script.fail("decode")
        with pytest.raises(DecodeError):
            one.context.decode(batch((0, 1, [4])))
        tokens.clear()

        assert one.ledger.batches == [
            ((1, 2, 3), (0, 0, 1), (0, 1, 1), (False, True, True)),
            ((4,), (1,), (0,), (True,)),
        ]

    def test_batch_at_a_gate(self, engine: MakeEngine, start: Start) -> None:
        """A batch can be looked at while it is inside."""
        one = engine()
        with one.script.gate("decode") as gate:
            start(one.feed, [5])
            gate.wait_entered()
            assert [b.tokens for b in one.ledger.batches] == [(5,)]

    def test_bytes(self, engine: MakeEngine) -> None:
        """Live bytes are those of models and contexts."""
        one = engine(NullScript(model_bytes=1000, kv_bytes_per_token=2))
        assert one.ledger.live_bytes == 1000 + 64 * 2 * 2

    def test_called_by_a_finalizer(self, engine: MakeEngine) -> None:
        """A finalizer that runs while the ledger is in use frees without a deadlock."""
        one = engine()

        class Owner:
            pass

        owner = Owner()
        owner.itself = owner  # type: ignore[attr-defined]
        weakref.finalize(owner, one.context.close)
        del owner
        with one.ledger._lock:
            gc.collect()
        assert one.ledger.live == {"backend": 1, "model": 1}

    def test_many_threads(self, engine: MakeEngine) -> None:
        """Calls from many threads are all counted."""
        one = engine()
        threads = [
            threading.Thread(
                target=lambda: [one.model.tokenize(b"x") for _ in range(200)]
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (one.ledger.calls["tokenize"], one.violations) == (800, [])


class TestLifeViolations:
    def test_use_after_free(self, engine: MakeEngine) -> None:
        """A call on a freed object is recorded and does no harm."""
        one = engine()
        one.close()
        one.context.bounds(0)
        one.model.tokenize(b"x")
        one.backend.devices()
        assert one.violations == ["use-after-free"] * 3

    def test_double_free(self, engine: MakeEngine) -> None:
        """Freeing twice is recorded."""
        one = engine()
        one.context.close()
        one.context.close()
        assert one.violations == ["double-free"]

    @pytest.mark.parametrize("first", ["backend", "model"])
    def test_parent_first(self, engine: MakeEngine, first: str) -> None:
        """Freeing a parent before its child is recorded."""
        one = engine()
        getattr(one, first).close()
        assert one.violations == ["parent-freed-first"]

    def test_sampler_outlives_context(self, engine: MakeEngine) -> None:
        """A sampler is a child of its context."""
        one = engine()
        one.context.create_sampler(GREEDY, 1)
        one.context.close()
        assert one.violations == ["parent-freed-first"]

    @pytest.mark.parametrize(
        ("part", "op"), [("context", "decode"), ("model", "tokenize")]
    )
    def test_free_in_use(
        self, engine: MakeEngine, start: Start, part: str, op: str
    ) -> None:
        """Freeing while a call is inside is recorded."""
        one = engine()
        with one.script.gate(op) as gate:
            call = start(one.feed, [1]) if op == "decode" else None
            call = call or start(one.model.tokenize, b"x")
            gate.wait_entered()
            if part == "model":
                one.context.close()
            getattr(one, part).close()
        call.exception()
        assert one.violations[0] == "free-in-use"

    def test_call_while_closing(self, engine: MakeEngine, start: Start) -> None:
        """A call that comes while the free is inside is a use after free."""
        one = engine()
        with one.script.gate("close_context") as gate:
            closing = start(one.context.close)
            gate.wait_entered()
            assert one.ledger.live["context"] == 1
            one.context.bounds(0)
        closing.result()
        assert one.violations == ["use-after-free"]
        assert "context" not in one.ledger.live

    def test_failing_close_frees(self, engine: MakeEngine) -> None:
        """A close that raises has freed the object all the same."""
        one = engine()
        one.script.fail("close_context")
        with pytest.raises(BackendError):
            one.context.close()
        assert "context" not in one.ledger.live

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    @pytest.mark.parametrize("op", ["use", "close"])
    def test_forked(self, engine: MakeEngine, op: str) -> None:
        """A call in a forked child is recorded, and the parent sees it."""
        one = engine()
        child = os.fork()
        if child == 0:
            one.context.close() if op == "close" else one.context.bounds(0)
            os._exit(one.violations != ["forked"])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert one.violations == ["forked"]
        assert one.ledger.live["context"] == 1


class TestOverlap:
    def test_context(self, engine: MakeEngine, start: Start) -> None:
        """Two calls on one context at once are recorded."""
        one = engine()
        with one.script.gate("decode") as gate:
            call = start(one.context.decode, batch((0, 0, TEN)))
            gate.wait_entered()
            one.context.bounds(1)
        call.result()
        assert one.violations == ["overlap"]

    def test_sampler(self, engine: MakeEngine, start: Start) -> None:
        """A sampler is used within its context's turn."""
        one = engine()
        sampler = one.context.create_sampler(GREEDY, 1)
        with one.script.gate("decode") as gate:
            call = start(one.context.decode, batch((0, 0, TEN)))
            gate.wait_entered()
            sampler.accept(1)
        call.result()
        assert one.violations == ["overlap"]

    def test_abort_may(self, engine: MakeEngine, start: Start) -> None:
        """Abort is the one call that may come while another runs."""
        one = engine()
        with one.script.gate("decode") as gate:
            call = start(one.context.decode, batch((0, 0, TEN)))
            gate.wait_entered()
            one.context.abort(True)
            assert call.exception()
        assert one.violations == []

    @pytest.mark.parametrize("op", ["tokenize", "load"])
    def test_any_thread(self, engine: MakeEngine, start: Start, op: str) -> None:
        """Loading and tokenising may run several at once, and beside a decode."""
        one = engine()
        load = one.backend.load_model, None, ModelParams(), lambda _: True
        task = load if op == "load" else (one.model.tokenize, b"x")
        with one.script.gate(op) as gate:
            calls = [start(*task), start(*task)]
            gate.wait_entered(count=2)
            one.feed(TEN)
        assert all(call.result() for call in calls)
        assert one.violations == []

    @pytest.mark.parametrize(
        ("exclusion", "other", "expected"),
        [
            ("context", "context", []),
            ("model", "context", ["overlap"]),
            ("model", "model", []),
            ("device", "model", ["overlap"]),
            ("device", "backend", []),
            ("process", "backend", ["overlap"]),
        ],
    )
    def test_scope(
        self,
        engine: MakeEngine,
        start: Start,
        exclusion: Any,
        other: str,
        expected: list[str],
    ) -> None:
        """The declared scope decides which other contexts may run at once."""
        one = engine(NullScript(exclusion=exclusion))
        backend = one.backend
        if other == "backend":
            backend = null_backend(NullScript(exclusion=exclusion))
        model = one.model
        if other != "context":
            model = backend.load_model(None, ModelParams(), lambda _: True)
        second = model.create_context(ContextParams(context_size=8))
        with one.script.gate("decode") as gate:
            call = start(one.context.decode, batch((0, 0, TEN)))
            gate.wait_entered()
            second.bounds(0)
        call.result()
        assert expected == [v.kind.value for v in backend.ledger.violations]
