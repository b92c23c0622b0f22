"""Gates, failures, crashes, aborts, memory and loading as scripted."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from llmcore.backends.null.model import NullModel
from llmcore.errors import (
    BackendError,
    ContextCreationError,
    DecodeAbortedError,
    DecodeError,
    InsufficientMemoryError,
    ModelLoadError,
    OperationCancelledError,
    StateError,
)
from llmcore.spi import Progress
from llmcore.testing import OPS, NullBackend, NullScript, null_backend
from llmcore.values import ContextParams, ModelParams, SamplingParams

from .conftest import Engine, MakeEngine, Start, batch

TEN = list(range(97, 107))
PARAMS = ContextParams(context_size=8)


def load(backend: NullBackend, progress: Progress = lambda share: True) -> NullModel:
    return backend.load_model(None, ModelParams(), progress)


def use(one: Engine, op: str) -> None:
    """Make one call of an operation on an engine that has evaluated ten tokens."""
    context = one.context
    sampler = context.create_sampler(SamplingParams(), 1) if op in _SAMPLER else None
    calls: dict[str, Callable[[], object]] = {
        "devices": one.backend.devices,
        "load": lambda: load(one.backend),
        "close_backend": one.backend.close,
        "tokenize": lambda: one.model.tokenize(b"x"),
        "piece": lambda: one.model.piece(1),
        "create_context": lambda: one.model.create_context(PARAMS),
        "close_model": one.model.close,
        "decode": lambda: context.decode(batch((0, 10, [1]))),
        "logits": lambda: context.logits(0),
        "sample": lambda: context.sample(0, sampler),  # type: ignore[arg-type]
        "embedding": lambda: context.embedding(0),
        "bounds": lambda: context.bounds(0),
        "memory": context.memory,
        "clear": lambda: context.clear(0),
        "remove": lambda: context.remove(0, 5),
        "copy": lambda: context.copy(0, 1),
        "shift": lambda: context.shift(0, 0, 10, 1),
        "save_state": lambda: context.save_state(0),
        "load_state": lambda: context.load_state(0, b""),
        "close_context": context.close,
        "create_sampler": lambda: context.create_sampler(SamplingParams(), 1),
        "accept": lambda: sampler.accept(1),  # type: ignore[union-attr]
        "close_sampler": lambda: sampler.close(),  # type: ignore[union-attr]
    }
    calls[op]()


_SAMPLER = ("sample", "accept", "close_sampler")


class TestFail:
    @pytest.mark.parametrize("op", OPS)
    def test_every_operation(self, engine: MakeEngine, op: str) -> None:
        """Every operation can be made to fail, with what a test chooses."""
        one = engine(embeddings=True)
        one.feed(TEN)
        one.script.fail(op, error=ZeroDivisionError)
        with pytest.raises(ZeroDivisionError, match=op):
            use(one, op)

    @pytest.mark.parametrize(
        ("op", "error"),
        [
            ("load", ModelLoadError),
            ("create_context", ContextCreationError),
            ("decode", DecodeError),
            ("load_state", StateError),
            ("save_state", BackendError),
        ],
    )
    def test_default_error(
        self, engine: MakeEngine, op: str, error: type[Exception]
    ) -> None:
        """Without a choice it is the error that the seam names."""
        one = engine()
        one.feed(TEN)
        one.script.fail(op)
        with pytest.raises(error, match="scripted failure"):
            use(one, op)

    def test_nth_and_times(self, engine: MakeEngine) -> None:
        """Calls before the nth and after the last of `times` succeed."""
        one = engine()
        one.script.fail("tokenize", nth=2, times=2)
        assert [tokenize(one) for _ in range(4)] == ["ok", "failed", "failed", "ok"]

    def test_for_ever(self, engine: MakeEngine) -> None:
        """A failure without `times` never ends."""
        one = engine()
        one.script.fail("tokenize", times=None)
        assert [tokenize(one) for _ in range(3)] == ["failed"] * 3

    @pytest.mark.parametrize("applied", [0, 4])
    def test_applied(self, engine: MakeEngine, applied: int) -> None:
        """A failed batch leaves as many tokens in the cache as scripted."""
        one = engine()
        one.script.fail("decode", applied=applied)
        with pytest.raises(DecodeError):
            one.context.decode(batch((0, 0, TEN)))
        assert applied - 1 == one.context.bounds(0)[1]
        expected = engine().feed(TEN)
        assert expected == one.feed(TEN[applied:], at=applied)

    @pytest.mark.parametrize(
        ("applied", "held"),
        [(0, [-1, -1, -1]), (1, [0, -1, -1]), (3, [0, -1, 1]), (5, [0, 1, 1])],
    )
    def test_applied_to_several(
        self, engine: MakeEngine, applied: int, held: list[int]
    ) -> None:
        """Of a batch of several sequences, the first tokens of the batch stay."""
        one = engine(sequences=3)
        one.script.fail("decode", applied=applied, sequence=1)
        with pytest.raises(DecodeError):
            one.context.decode(batch((0, 0, [1]), (2, 0, [2, 3]), (1, 0, [4, 5, 6])))
        assert [one.context.bounds(n)[1] for n in range(3)] == held
        rest = [4, 5, 6][held[1] + 1 :]
        assert one.feed(rest, held[1] + 1, 1) == engine().feed([4, 5, 6])

    def test_one_sequence_among_others(self, engine: MakeEngine) -> None:
        """A batch that holds a given sequence among others fails as a whole."""
        one = engine()
        one.script.fail("decode", sequence=1)
        with pytest.raises(DecodeError):
            one.context.decode(batch((0, 0, [1]), (1, 0, [2])))
        one.context.decode(batch((0, 0, [1]), (1, 0, [2])))

    def test_one_sequence(self, engine: MakeEngine) -> None:
        """Only batches with a given sequence fail."""
        one = engine()
        one.script.fail("decode", sequence=1, times=None)
        one.feed(TEN)
        with pytest.raises(DecodeError):
            one.feed(TEN, sequence=1)
        one.feed([1], at=10)

    @pytest.mark.parametrize(("op", "nth"), [("decod", 1), ("decode", 0)])
    def test_wrong_rule(self, op: str, nth: int) -> None:
        """A rule that can never match is refused."""
        with pytest.raises(ValueError, match="must be"):
            NullScript().fail(op, nth=nth)

    def test_failed_creation_leaves_nothing(self, engine: MakeEngine) -> None:
        """Failed loads and contexts leave nothing behind."""
        one = engine()
        before = one.ledger.live
        one.script.fail("load")
        one.script.fail("create_context")
        for op in ("load", "create_context"):
            with pytest.raises(RuntimeError):
                use(one, op)
        assert before == one.ledger.live


def tokenize(one: Engine) -> str:
    try:
        one.model.tokenize(b"x")
    except BackendError:
        return "failed"
    return "ok"


class TestGate:
    def test_holds(self, engine: MakeEngine, start: Start) -> None:
        """A gate holds the call, knows its thread, and lets it go."""
        one = engine()
        gate = one.script.gate("decode")
        call = start(lambda: (one.feed(TEN), threading.get_ident())[1])
        gate.wait_entered()
        assert (gate.entered, gate.waiting, call.done()) == (1, 1, False)
        gate.open()
        assert [call.result()] == gate.threads
        assert gate.waiting == 0

    def test_opens_with_its_block(self, engine: MakeEngine, start: Start) -> None:
        """The end of a with block opens the gate, even after an error."""
        one = engine()
        with suppress(KeyError), one.script.gate("decode") as gate:
            call = start(one.feed, TEN)
            gate.wait_entered()
            raise KeyError
        assert call.result()

    def test_nth(self, engine: MakeEngine, start: Start) -> None:
        """Calls before the nth pass."""
        one = engine()
        with one.script.gate("decode", nth=2) as gate:
            one.feed(TEN)
            assert gate.entered == 0
            call = start(one.feed, [1], 10)
            gate.wait_entered()
        assert call.result()

    def test_one_sequence(self, engine: MakeEngine, start: Start) -> None:
        """Only batches with a given sequence are held, alone in it or not."""
        one = engine()
        with one.script.gate("decode", sequence=1) as gate:
            one.feed(TEN)
            assert gate.entered == 0
            call = start(one.context.decode, batch((0, 10, [1]), (1, 0, [2])))
            gate.wait_entered()
        call.result()

    def test_step(self, engine: MakeEngine, start: Start) -> None:
        """Calls can be let through one by one."""
        one = engine()
        with one.script.gate("decode") as gate:
            call = start(one.write, TEN, 3)
            gate.step()
            gate.wait_entered(count=2)
            assert gate.waiting == 1
        assert len(call.result()) == 3

    def test_gives_up(self, engine: MakeEngine) -> None:
        """A call that nobody lets go ends with a clear error."""
        one = engine()
        one.script.gate("decode", timeout=0.01)
        with pytest.raises(TimeoutError, match="nobody opened the gate of 'decode'"):
            one.feed(TEN)

    def test_nobody_came(self) -> None:
        """Waiting for a call that never comes ends with a clear error."""
        gate = NullScript().gate("decode")
        with pytest.raises(TimeoutError, match="0 of 1 calls of 'decode'"):
            gate.wait_entered(0.01)

    def test_repr(self) -> None:
        """A gate shows its state."""
        gate = NullScript().gate("decode")
        assert repr(gate) == "<Gate(decode, shut, entered=0)>"
        gate.open()
        assert repr(gate) == "<Gate(decode, open, entered=0)>"


class TestAbort:
    def test_at_a_gate(self, engine: MakeEngine, start: Start) -> None:
        """Abort ends a decode that waits at a gate; nothing is applied."""
        one = engine()
        with one.script.gate("decode") as gate:
            call = start(one.context.decode, batch((0, 0, TEN)))
            gate.wait_entered()
            one.context.abort(True)
            assert isinstance(call.exception(), DecodeAbortedError)
        assert one.context.bounds(0) == (-1, -1)

    def test_until_allowed(self, engine: MakeEngine) -> None:
        """Decoding stays forbidden until it is allowed again."""
        one = engine()
        one.context.abort(True)
        with pytest.raises(DecodeAbortedError):
            one.feed(TEN)
        one.context.abort(False)
        assert one.feed(TEN)

    def test_partly_applied(self, engine: MakeEngine) -> None:
        """An aborted decode may have applied a part."""
        one = engine()
        one.script.fail("decode", error=DecodeAbortedError, applied=3)
        with pytest.raises(DecodeAbortedError):
            one.feed(TEN)
        assert one.context.bounds(0) == (0, 2)


CRASH = """
import resource, sys
from llmcore.spi import Batch
from llmcore.testing import NullScript, null_backend
from llmcore.values import ContextParams, ModelParams

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
script = NullScript()
script.crash(sys.argv[1])
backend = null_backend(script)
model = backend.load_model(None, ModelParams(), lambda share: True)
context = model.create_context(ContextParams(context_size=8))
context.decode(Batch([1], [0], [0], [True]))
context.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
@pytest.mark.parametrize("op", ["load", "decode", "close_context"])
def test_crash(op: str) -> None:
    """A crash ends the process as a native abort does."""
    done = subprocess.run([sys.executable, "-c", CRASH, op], capture_output=True)
    assert done.returncode == -signal.SIGABRT, done.stderr


class TestLoad:
    def test_progress(self) -> None:
        """Loading reports its beginning, its middle and its end."""
        seen: list[float] = []
        load(null_backend(), lambda share: not seen.append(share))  # type: ignore[func-returns-value]
        assert seen == [0.0, 0.5, 1.0]

    @pytest.mark.parametrize("last", [0.0, 0.5, 1.0])
    def test_cancel(self, last: float) -> None:
        """Loading can be cancelled at every report and leaves nothing."""
        backend = null_backend()
        with pytest.raises(OperationCancelledError):
            load(backend, lambda share: share < last)
        assert (backend.ledger.live, backend.ledger.live_bytes) == ({"backend": 1}, 0)

    def test_failing_progress(self) -> None:
        """An error in the progress function passes through and leaves nothing."""
        backend = null_backend()
        with pytest.raises(ZeroDivisionError):
            load(backend, lambda share: bool(1 / share))
        assert backend.ledger.live == {"backend": 1}


class TestMemory:
    def test_device(self) -> None:
        """The device shows what is used of the scripted capacity."""
        backend = null_backend(NullScript(capacity_bytes=5000, model_bytes=1000))
        load(backend)
        (device,) = backend.devices()
        assert (device.total, device.free) == (5000, 4000)

    def test_unlimited(self) -> None:
        """Without a capacity there is always room."""
        backend = null_backend()
        load(backend)
        assert backend.devices()[0].used == backend.script.model_bytes

    def test_load_too_much(self) -> None:
        """A model that does not fit is refused and leaves nothing."""
        backend = null_backend(NullScript(capacity_bytes=1500, model_bytes=1000))
        load(backend)
        with pytest.raises(InsufficientMemoryError, match="1000 bytes but 500 are"):
            load(backend)
        assert backend.ledger.live_bytes == 1000

    def test_context_too_large(self) -> None:
        """A context that does not fit is refused at its creation."""
        script = NullScript(
            capacity_bytes=1100, model_bytes=1000, kv_bytes_per_token=10
        )
        backend = null_backend(script)
        model = load(backend)
        with pytest.raises(InsufficientMemoryError, match="the context needs 160"):
            model.create_context(ContextParams(context_size=16))
        assert model.create_context(PARAMS).memory().kv_cache == 80

    def test_release_at_once(self) -> None:
        """Freed memory can be used at once."""
        backend = null_backend(NullScript(capacity_bytes=1000, model_bytes=1000))
        load(backend).close()
        assert load(backend).info.size_bytes == 1000

    def test_release_delay(self) -> None:
        """Delayed memory is free only after it has settled."""
        script = NullScript(capacity_bytes=1000, model_bytes=1000, release_delay=True)
        backend = null_backend(script)
        load(backend).close()
        assert (backend.ledger.live_bytes, backend.ledger.used_bytes) == (0, 1000)
        with pytest.raises(InsufficientMemoryError):
            load(backend)
        backend.ledger.settle()
        assert load(backend).info.size_bytes == 1000
