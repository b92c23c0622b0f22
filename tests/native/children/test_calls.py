"""Calls on an isolated engine mean what they mean on any other."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import llmcore
from llmcore.backends.null import INFO
from llmcore.errors import (
    BackendError,
    BackendUnavailableError,
    ContextOverflowError,
    ModelLoadError,
    OperationCancelledError,
    StateError,
)
from llmcore.isolation import isolated
from llmcore.isolation.faults import RemoteError
from llmcore.spi import Batch
from llmcore.testing import null_backend
from llmcore.values import ContextParams, ModelParams

from .conftest import WAIT, Engine, Listener

PROMPT = [ord(letter) for letter in "Once upon a time"]

Make = Callable[..., llmcore.Sequence]


def in_process(**options: Any) -> list[int]:
    """What the same engine answers without isolation."""
    with llmcore.get_llama(null_backend()) as llama:
        sequence = llama.load_model().create_context(context_size=256).get_sequence()
        found: list[int] = sequence.generate(PROMPT, **options).result.tokens
        return found


@pytest.mark.parametrize("factory", ["", "sampling_by_core"])
@pytest.mark.parametrize(
    "options", [{}, {"repeat_penalty": 1.4}, {"temperature": 1.0, "seed": 5}]
)
def test_same_tokens(sequence: Make, factory: str, options: dict[str, Any]) -> None:
    """The tokens are those of the engine in this process."""
    options = {"max_tokens": 24, "ignore_eos": True, **options}

    assert sequence(factory).generate(PROMPT, **options).result.tokens == in_process(
        **options
    )


def test_unasked_draws(sequence: Make) -> None:
    """A token that was drawn ahead and not wanted changes nothing."""
    subject = sequence()
    expected = in_process(max_tokens=8)
    stream = subject.generate(PROMPT, max_tokens=8)
    next(stream)
    stream.close()
    subject.evaluate([65])
    subject.clear()

    assert subject.generate(PROMPT, max_tokens=8).result.tokens == expected


def test_contexts_at_once(engine: Engine) -> None:
    """Eight contexts generate at the same time."""
    with llmcore.get_llama(engine()) as llama, llama.load_model() as model:
        contexts = [model.create_context(context_size=256) for _ in range(8)]
        sequences = [context.get_sequence() for context in contexts]

        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(
                    lambda s: s.generate(PROMPT, max_tokens=40).result.tokens, sequences
                )
            )

    assert answers == [in_process(max_tokens=40)] * 8


def test_abort(sequence: Make, listener: Listener) -> None:
    """An evaluation is stopped while it runs in the child."""
    subject = sequence("wait_inside")
    inside = listener.expect("inside")
    stream = subject.generate([ord("!")], max_tokens=3)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list, stream)
        assert inside.wait(WAIT)
        stream.cancel()

        with pytest.raises(OperationCancelledError):
            reading.result(WAIT)


def test_abort_is_over(engine: Engine) -> None:
    """An abort stops nothing that begins after it was taken back."""
    model = engine().load_model(None, ModelParams(), lambda share: True)
    context = model.create_context(ContextParams(context_size=64))
    for position in range(20):
        context.abort(True)
        context.abort(False)
        context.decode(Batch([65], [position], [0], [True]))

    assert context.bounds(0) == (0, 19)
    context.close()


def test_abort_before(engine: Engine) -> None:
    """An abort that was not taken back stops what begins after it."""
    model = engine().load_model(None, ModelParams(), lambda share: True)
    context = model.create_context(ContextParams(context_size=64))
    context.abort(False)
    context.abort(True)
    model.tokenize(b"until the child has heard of it")

    def decode_for_ever() -> None:
        for position in range(64):
            context.decode(Batch([65], [position], [0], [True]))

    with pytest.raises(llmcore.errors.DecodeAbortedError):
        decode_for_ever()
    context.close()


def test_interrupted_call(engine: Engine, listener: Listener, tmp_path: Path) -> None:
    """Ctrl-C strikes when the call is over, as in a native one; the next call works."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    model = engine("wait_for_file").load_model(None, ModelParams(), lambda share: True)
    inside = listener.expect("inside")

    def interrupt() -> None:
        inside.wait(WAIT)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        pipe.write_text("go on")

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        model.tokenize(os.fsencode(pipe))
    thread.join()

    assert model.tokenize(b"a") == [97]


# -- loading ---------------------------------------------------------------------------


def test_progress(engine: Engine) -> None:
    """Progress is told in the thread that loads."""
    told: list[tuple[float, threading.Thread]] = []
    engine().load_model(
        None,
        ModelParams(),
        lambda share: not told.append((share, threading.current_thread())),
    )

    assert told == [(n, threading.main_thread()) for n in (0.0, 0.5, 1.0)]


def test_cancelled_load(engine: Engine) -> None:
    """A load is cancelled from its own progress, and leaves nothing."""
    backend = engine()
    with llmcore.get_llama(backend) as llama:
        with pytest.raises(OperationCancelledError, match="50%"):
            llama.load_model(progress=lambda share: share < 0.5)
        (device,) = backend.devices()

    assert device.used == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failing_progress(engine: Engine, error: type[BaseException]) -> None:
    """What a callback raises comes out of the load, which leaves nothing."""
    backend = engine()

    def progress(share: float) -> bool:
        raise error

    with pytest.raises(error):
        backend.load_model(None, ModelParams(), progress)

    assert backend.devices()[0].used == 0


# -- errors and words ------------------------------------------------------------------


def test_own_error(engine: Engine) -> None:
    """An error of llmcore keeps its type, its words and its traceback."""
    model = engine().load_model(None, ModelParams(), lambda share: True)
    context = model.create_context(ContextParams(context_size=64))

    with pytest.raises(StateError, match="its header differs") as caught:
        context.load_state(0, b"nonsense")

    assert isinstance(caught.value.__cause__, RemoteError)
    assert "in load_state" in str(caught.value.__cause__)
    context.close()


def test_derived_error(engine: Engine) -> None:
    """An error that the engine derived from one of llmcore crosses as that one."""
    model = engine("derived_error").load_model(None, ModelParams(), lambda share: True)

    with pytest.raises(ContextOverflowError) as caught:
        model.tokenize(b"a")

    assert (caught.value.needed, caught.value.available) == (3, 2)


def test_load_error(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load that fails names the path as it was given."""
    monkeypatch.chdir(tmp_path)
    backend = engine("failing_load")

    with pytest.raises(ModelLoadError, match=r"'model\.gguf': scripted") as caught:
        backend.load_model(Path("model.gguf"), ModelParams(), lambda share: True)

    assert caught.value.path == "model.gguf"


def test_foreign_error(engine: Engine) -> None:
    """An error of the engine's own is named in the words of the seam."""
    model = engine("broken_tools").load_model(None, ModelParams(), lambda share: True)

    with pytest.raises(
        BackendError, match="the null backend raised ZeroDivisionError: by nothing"
    ):
        model.tokenize(b"a")


def test_output(sequence: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """What the child prints never gets into what this program prints."""
    sequence("talk").evaluate([ord("!")])

    assert capfd.readouterr() == ("", "")


def test_log(sequence: Make, listener: Listener) -> None:
    """It goes to `logging`, line by line."""
    wanted = [
        listener.expect(text)
        for text in ("from Python", "from below", "from below, as an error")
    ]
    sequence("talk").evaluate([ord("!")])

    assert all(event.wait(WAIT) for event in wanted)


# -- what can be asked for -------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"restart": "always"}, "restart must be 'never' or 'replay', got 'always'"),
        ({"watchdog": 0}, "watchdog must be above 0 seconds, got 0"),
    ],
)
def test_bad_options(options: dict[str, Any], reason: str) -> None:
    """A bad option is refused before anything is started."""
    with pytest.raises(ValueError, match=reason):
        isolated(INFO, **options)


def test_no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Python to start, isolation says so."""
    monkeypatch.setattr("sys.executable", "")

    with pytest.raises(BackendUnavailableError, match="a Python program to start"):
        isolated(INFO)


def test_lost_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that cannot be started is named."""
    monkeypatch.setattr("sys.executable", "/no/such/python")

    with pytest.raises(BackendUnavailableError, match="/no/such/python"):
        isolated(INFO)


def test_no_watchdog(engine: Engine) -> None:
    """The watchdog can be left out."""
    assert engine(watchdog=None).devices()
