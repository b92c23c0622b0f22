"""
Disposing at the wrong time, in the wrong order, from the wrong place.
"""

from __future__ import annotations

import gc
import itertools
import signal
import threading
from collections.abc import Callable

from fault_scenarios.kit import (
    Stack,
    Writer,
    answer,
    error_of,
    llama_of,
    make_context,
    make_model,
    make_stack,
    model_path,
    prompt_tokens,
    together,
)
from fault_scenarios.table import scenario
from llmcore import Resource


def public_calls(stack: Stack) -> dict[str, list[Callable[[], object]]]:
    """Every call of each level that needs the engine or its state."""
    llama, model, context, sequence, chat = stack
    return {
        "llama": [
            lambda: llama.load_model(model_path()),
            llama.devices,
            llama.memory_state,
            llama.get_vram_state,
        ],
        "model": [
            lambda: model.create_context(context_size=64),
            lambda: model.tokenize("a"),
            lambda: model.piece(0),
            lambda: model.detokenize([0]),
        ],
        "context": [
            context.get_sequence,
            context.memory_info,
            context.clear,
            lambda: context.sequences_left,
        ],
        "sequence": [
            lambda: sequence.evaluate([1]),
            lambda: sequence.generate([1]),
            lambda: sequence.truncate(0),
            lambda: sequence.tokens,
            lambda: sequence.position,
            lambda: sequence.logits,
            sequence.sample,
            sequence.clear,
            sequence.fork,
        ],
        "chat": [
            lambda: chat.prompt("a"),
            lambda: chat.stream("a"),
            lambda: chat.history,
            lambda: chat.set_history([]),
            chat.reset,
        ],
    }


@scenario(r"[0-9]+ calls.*DisposedError: chat#\d+ is disposed because llama#\d+ ")
def call_after_dispose() -> None:
    """Every call below the level that was disposed says so, and says who did it."""
    count = 0
    for top, level in enumerate(Stack._fields):
        stack = make_stack()
        stack.sequence.evaluate([1])
        getattr(stack, level).dispose()
        label = getattr(stack, level)._node.label
        for below in Stack._fields[top:]:
            for call in public_calls(stack)[below]:
                message = error_of(call)
                assert message.startswith("DisposedError: "), message
                assert label in message, message
                count += 1
        if level == "llama":
            last = message
        stack.llama.dispose()
    print(f"{count} calls, the last of them {last}")


def _while_generating(level: str) -> None:
    context = make_context()
    sequence = context.get_sequence()
    levels: dict[str, Resource] = {
        "llama": llama_of(context.model),
        "model": context.model,
        "context": context,
        "sequence": sequence,
    }
    writer = Writer(sequence)
    levels[level].dispose()
    print(error_of(writer.result))


@scenario(r"DisposedError: sequence#\d+ is disposed because llama#", real_model=True)
def dispose_llama_while_another_thread_generates() -> None:
    """The thread gets one clear error."""
    _while_generating("llama")


@scenario(r"DisposedError: sequence#\d+ is disposed because model#", real_model=True)
def dispose_model_while_another_thread_generates() -> None:
    """The thread gets one clear error."""
    _while_generating("model")


@scenario(r"DisposedError: sequence#\d+ is disposed because context#", real_model=True)
def dispose_context_while_another_thread_generates() -> None:
    """The thread gets one clear error."""
    _while_generating("context")


@scenario(r"DisposedError: sequence#\d+ is disposed: ", real_model=True)
def dispose_sequence_while_another_thread_generates() -> None:
    """The thread gets one clear error."""
    _while_generating("sequence")


@scenario("120 orders")
def dispose_in_every_order() -> None:
    """All orders of disposing llama, model, context, sequence and chat."""
    orders = list(itertools.permutations(Stack._fields))
    for order in orders:
        stack = make_stack()
        stack.chat.prompt("a", max_tokens=1)
        for level in order:
            getattr(stack, level).dispose()
        assert all(resource.disposed for resource in stack)
        assert not stack.llama.resources()
    print(f"{len(orders)} orders")


@scenario("disposed once by 8 threads")
def dispose_from_many_threads() -> None:
    """Everybody who disposes waits for the one who frees."""
    for _ in range(20):
        stack = make_stack()
        targets = [stack.llama, stack.model, stack.context, stack.sequence] * 2
        told = together(
            [lambda r=r: (r.dispose(), r._node.state.value) for r in targets]  # type: ignore[misc]
        )
        assert told == ["(None, 'disposed')"] * 8, told
        gc.collect()
    print("disposed once by 8 threads, 20 times")


@scenario("DisposedError: llama#")
def dispose_in_progress_callback() -> None:
    """Disposing the engine in the middle of a load ends the load."""
    llama = llama_of(make_model())
    shares: list[float] = []

    def progress(share: float) -> None:
        shares.append(share)
        llama.dispose()

    print(error_of(lambda: llama.load_model(model_path(), progress=progress)))
    assert len(shares) == 1, shares


@scenario("interrupted .*DisposedError: (sequence|context|model)#", real_model=True)
def dispose_in_signal_handler() -> None:
    """A signal handler may dispose what the thread under it is using."""
    for after in (0.001, 0.01, 0.05, 0.2):  # before, and inside of, the prompt
        context = make_context()
        sequence = context.get_sequence()
        model = context.model
        tokens = prompt_tokens(model, "tale " * 400)
        signal.signal(signal.SIGALRM, lambda *_, m=model: m.dispose())
        signal.setitimer(signal.ITIMER_REAL, after)
        message = error_of(lambda s=sequence, t=tokens: s.generate(t).result)  # type: ignore[misc]
        model.dispose()
        assert not model._node.handle
    print(f"interrupted by its own thread: {message}")


@scenario("DisposedError: sequence#.* in a handler, and nothing hangs")
def signals_at_any_moment() -> None:
    """Disposals from a handler that strikes hundreds of times at random places."""
    context = make_context(sequences=8, context_size=128)
    rounds, message = 0, ""
    while rounds < 300:
        rounds += 1
        sequence = context.get_sequence()
        signal.signal(signal.SIGALRM, lambda *_, s=sequence: s.dispose())
        signal.setitimer(signal.ITIMER_REAL, rounds * 37e-6 % 5e-3 + 1e-5)
        try:
            while not sequence.disposed:
                answer(sequence, "a", max_tokens=3)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            assert message.startswith("DisposedError: sequence#"), message
        sequence.dispose()
    assert context.sequences_left == 8
    context.dispose()
    print(f"{message} in a handler, and nothing hangs")


class _Holder:
    def __init__(self) -> None:
        self.stack = make_stack()
        self.me = self

    def __del__(self) -> None:
        self.stack.model.dispose()


@scenario("everything is freed")
def dispose_in_del() -> None:
    """A `__del__` that disposes, run by the collector in the middle of our work."""
    keeper = make_context()
    sequence = keeper.get_sequence()
    alone = answer(sequence)
    gc.set_threshold(20)
    for _ in range(10):
        _Holder()
        assert answer(sequence) == alone
    gc.set_threshold(700)
    gc.collect()
    freed = threading.Event()
    keeper.model.dispose()
    freed.set()
    print("everything is freed")
