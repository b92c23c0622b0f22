"""`leak_check` around code that leaks in each way, over the null engine."""

from __future__ import annotations

import gc
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import llmcore
from llmcore.lifecycle import collect_forgotten
from llmcore.testing import (
    LeakCheck,
    LeakError,
    leak_check,
    null_backend,
)

from .leak_kit import leaks_of

PATIENCE = 20.0
kept: list[Any] = []


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    kept.clear()


@contextmanager
def no_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def when_collecting(act: Callable[[], object]) -> Iterator[None]:
    """Do something when the collector runs, as it does at the end of a check."""

    def callback(phase: str, info: dict[str, int]) -> None:
        act()

    gc.callbacks.append(callback)
    try:
        yield
    finally:
        gc.callbacks.remove(callback)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of what a test forgets on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect()
        collect_forgotten()


class TestClean:
    def test_disposed(self) -> None:
        """Code that disposes what it makes passes."""
        with leak_check(), llmcore.get_llama(null_backend()) as llama:
            context = llama.load_model().create_context(context_size=64)
            with context.get_sequence() as sequence:
                sequence.generate([1, 2], max_tokens=4).result  # noqa: B018

    def test_made_before(self, llama: llmcore.Llama) -> None:
        """What was made before the block is not its business."""
        before = llama.load_model()
        with leak_check():
            before.create_context(context_size=64).dispose()
        with leak_check():
            before.dispose()

    def test_allowed(self, llama: llmcore.Llama) -> None:
        """What is meant to live on is left alone."""
        with leak_check() as check:
            kept.append(llama.load_model())
            check.allow(*kept)

    def test_disposed_elsewhere(self, llama: llmcore.Llama) -> None:
        """A disposal that still runs in another thread is waited for."""
        inside, go_on = threading.Event(), threading.Event()

        def use(model: llmcore.Model) -> None:
            with model._use():
                inside.set()
                assert go_on.wait(PATIENCE)

        with no_collector(), when_collecting(go_on.set), leak_check():
            model = llama.load_model()
            threads = [
                threading.Thread(target=use, args=(model,)),
                threading.Thread(target=model.dispose),
            ]
            threads[0].start()
            assert inside.wait(PATIENCE)
            threads[1].start()
            assert not go_on.is_set()
        for thread in threads:
            thread.join()

    def test_nothing_kept(self, llama: llmcore.Llama) -> None:
        """The check itself keeps nothing: what is dropped in it is freed in it."""
        engine = null_backend()
        with no_collector(), quiet(), pytest.raises(LeakError), leak_check():
            llmcore.get_llama(engine)
            collect_forgotten()
            assert engine.ledger.live == {}


class TestHeld:
    def test_named(self, llama: llmcore.Llama) -> None:
        """The object is named, with the line that made it and what to do."""
        made: list[llmcore.Model] = []

        [leak] = leaks_of(lambda: made.append(llama.load_model()))

        line = TestHeld.test_named.__code__.co_firstlineno + 4
        assert (leak.kind, leak.what) == ("held", made[0]._node.label)
        assert leak.created_at == (__file__, line)
        assert f"{leak.what} is live and was never disposed; use `with`" in leak.text
        assert f"made at {__file__}:{line} in <lambda>: [leak] = leaks" in leak.text
        assert "in leaks_of: work()" in leak.text

    def test_local(self, llama: llmcore.Llama) -> None:
        """A local variable of a function that runs is named."""
        with pytest.raises(LeakError, match="'model' of test_local "), leak_check():
            model = llama.load_model()
        model.dispose()

    def test_all(self) -> None:
        """A chain is told object by object, the oldest first."""
        made: list[Any] = []

        def work() -> None:
            made.append(llmcore.get_llama(null_backend()))
            made.append(made[0].load_model().create_context(context_size=64))

        leaks = leaks_of(work)
        made[0].dispose()

        assert [leak.what.partition("#")[0] for leak in leaks] == [
            "llama",
            "model",
            "context",
        ]
        assert "attribute 'model' of context#" in leaks[1].text

    def test_global(self, llama: llmcore.Llama) -> None:
        """A list of the module is named as what keeps it."""
        [leak] = leaks_of(lambda: kept.append(llama.load_model()))

        assert f"held by an item of a list, global 'kept' of module {__name__}" in (
            leak.text
        )

    def test_traceback(self, llama: llmcore.Llama) -> None:
        """An exception that is kept keeps what its functions had made."""

        def load() -> None:
            model = llama.load_model()
            raise ValueError(f"no, {model.disposed}")

        def work() -> None:
            try:
                load()
            except ValueError as error:
                kept.append(error)

        [leak] = leaks_of(work)
        llama.dispose()

        assert "local variable 'model' of load" in leak.text
        assert "the traceback of ValueError: no, False, an item of a list" in leak.text

    def test_other_thread(self, llama: llmcore.Llama) -> None:
        """What another thread has in its hands is found there."""
        loaded, end = threading.Event(), threading.Event()

        def work() -> None:
            with llama.load_model() as model:
                loaded.set()
                assert end.wait(PATIENCE)
            assert model.disposed

        thread = threading.Thread(target=work, name="other")

        def start() -> None:
            thread.start()
            assert loaded.wait(PATIENCE)

        [leak] = leaks_of(start)
        end.set()
        thread.join()

        assert "local variable 'model' of work in thread 'other'" in leak.text

    def test_attribute(self, llama: llmcore.Llama) -> None:
        """An attribute is named with the type of its object."""

        class Application:
            def __init__(self) -> None:
                self.model = llama.load_model()

        [leak] = leaks_of(lambda: kept.append(Application()))

        assert "attribute 'model' of a " in leak.text
        assert "Application, an item of a list, global 'kept'" in leak.text

    def test_paused(self, llama: llmcore.Llama) -> None:
        """A generator that was not run to its end is named."""

        def numbers() -> Iterator[int]:
            with llama.load_model():
                yield 1

        def work() -> None:
            kept.append(numbers())
            next(kept[0])

        [leak] = leaks_of(work)
        kept[0].close()

        assert "numbers (paused), an item of a list, global 'kept'" in leak.text

    def test_owned(self, llama: llmcore.Llama) -> None:
        """What a scope keeps is told as its own."""
        with llmcore.Scope() as scope:
            [leak] = leaks_of(lambda: scope.own(llama.load_model()))

            assert f"held by {scope._node.label}, which owns it" in leak.text

    def test_many(self, llama: llmcore.Llama) -> None:
        """Of a thousand each is named, and the slow search is made for a few."""
        model = llama.load_model()
        context = model.create_context(context_size=64, sequences=200)
        made: list[llmcore.Sequence] = []

        leaks = leaks_of(
            lambda: made.extend(context.get_sequence() for _ in range(200))
        )

        assert len(leaks) == 200
        assert sum("held by" in leak.text for leak in leaks) == 5

    def test_forgotten_once_disposed(self, llama: llmcore.Llama) -> None:
        """After the leak is mended the same check is silent: it found the real one."""
        made: list[llmcore.Model] = []
        leaks_of(lambda: made.append(llama.load_model()))

        with leak_check():
            made[0].dispose()


class TestForgotten:
    def test_dropped(self, llama: llmcore.Llama) -> None:
        """What was dropped is a leak although the reaper freed it."""
        with quiet(), no_collector():
            [leak] = leaks_of(lambda: llama.load_model() and None)

        assert (leak.kind, leak.what.partition("#")[0]) == ("forgotten", "model")
        assert "was forgotten: nobody refers to it any more" in leak.text
        assert f"made at {__file__}" in leak.text
        assert "held by" not in leak.text

    def test_cycle(self, llama: llmcore.Llama) -> None:
        """What only the collector would find is told apart from what is held."""

        def work() -> None:
            model: Any = llama.load_model()
            model.itself = model

        with quiet(), no_collector():
            [leak] = leaks_of(work)

        assert leak.kind == "forgotten"

    def test_both(self, llama: llmcore.Llama) -> None:
        """A held one and a forgotten one are two leaks of two kinds."""

        def work() -> None:
            kept.append(llama.load_model())
            llama.load_model()

        with quiet(), no_collector():
            leaks = leaks_of(work)

        assert {leak.kind for leak in leaks} == {"held", "forgotten"}

    def test_collected_before(self, llama: llmcore.Llama) -> None:
        """What was made before the check and is dropped in it is not its leak."""
        kept.append(llama.load_model())
        with quiet(), leak_check():
            kept.clear()
            collect_forgotten()


class TestInUse:
    def test_not_freed(
        self, llama: llmcore.Llama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was disposed while a thread is inside is told as being in use."""
        monkeypatch.setattr("llmcore.testing.leaks.PATIENCE", 0.01)
        inside, go_on = threading.Event(), threading.Event()

        def use(model: llmcore.Model) -> None:
            with model._use():
                inside.set()
                assert go_on.wait(PATIENCE)

        def work() -> None:
            model = llama.load_model()
            user = threading.Thread(target=use, args=(model,))
            user.start()
            kept.append(user)
            assert inside.wait(PATIENCE)
            with pytest.raises(llmcore.errors.DisposeTimeoutError):
                model.dispose(timeout=0)

        try:
            [leak] = leaks_of(work)
        finally:
            go_on.set()
            kept[0].join()

        assert leak.kind == "in use"
        assert "a thread is still inside" in leak.text


class TestErrors:
    def test_of_the_block(self, llama: llmcore.Llama) -> None:
        """An error of the block stays the error; what leaked is a note on it."""
        with pytest.raises(ZeroDivisionError) as caught, leak_check():
            model = llama.load_model()
            raise ZeroDivisionError

        [note] = caught.value.__notes__
        assert f"{model._node.label} is live and was never disposed" in note

    def test_nested(self, llama: llmcore.Llama) -> None:
        """Each block sees what was made in it; the outer one also the inner's."""
        first = second = None
        with pytest.raises(LeakError) as outer, leak_check():
            first = llama.load_model()
            with pytest.raises(LeakError) as inner, leak_check():
                second = llama.load_model()

        assert first is not None
        assert second is not None
        labels = [first._node.label, second._node.label]
        assert [leak.what for leak in inner.value.leaks] == labels[1:]
        assert [leak.what for leak in outer.value.leaks] == labels

    def test_travels(self, llama: llmcore.Llama) -> None:
        """The error can be sent to another process."""
        with pytest.raises(LeakError) as caught, leak_check():
            model = llama.load_model()
        model.dispose()
        copy = pickle.loads(pickle.dumps(caught.value))

        assert (str(copy), copy.leaks) == (str(caught.value), caught.value.leaks)

    def test_leaves_no_trace(self, llama: llmcore.Llama) -> None:
        """After the block nothing watches any more."""
        check: LeakCheck
        with leak_check() as check:
            pass
        model = llama.load_model()

        assert not check._made
        model.dispose()
