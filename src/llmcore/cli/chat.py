"""``llmcore chat``: a conversation in the terminal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmcore.cli.options import (
    BATCH,
    Backend,
    Batch,
    ContextSize,
    Fit,
    Gpu,
    GpuLayers,
    Isolation,
    KvType,
    KvTypeV,
    MaxTokens,
    Mlock,
    Mmap,
    ModelPath,
    Seed,
    System,
    Temperature,
    Verbose,
    context_fields,
    open_model,
    tell_memory,
    write,
)
from llmcore.errors import ContextOverflowError, OperationCancelledError

if TYPE_CHECKING:
    from llmcore.chat import ChatSession
    from llmcore.params import SamplingParams
    from llmcore.stream import Stream

HELP = "/reset starts again, /history shows what was said, /exit leaves; Ctrl-C stops"


def chat(
    model: ModelPath,
    backend: Backend = "auto",
    gpu: Gpu = "auto",
    isolation: Isolation = "none",
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = None,
    context_size: ContextSize = None,
    gpu_layers: GpuLayers = None,
    kv: KvType = "f16",
    kv_v: KvTypeV = None,
    batch: Batch = BATCH,
    mmap: Mmap = True,
    mlock: Mlock = False,
    fit: Fit = False,
    verbose: Verbose = False,
) -> None:
    """Talk to a model. Ctrl-C stops an answer, /exit leaves."""
    from llmcore.chat import ChatSession
    from llmcore.params import SamplingParams

    params = SamplingParams(temperature=temperature, seed=seed)
    with (
        open_model(
            model,
            backend=backend,
            gpu=gpu,
            isolation=isolation,
            gpu_layers=gpu_layers,
            fit=fit,
            mmap=mmap,
            mlock=mlock,
        ) as loaded,
        loaded.create_context(
            fit=fit, **context_fields(context_size, kv, kv_v, batch)
        ) as context,
        ChatSession(context.get_sequence(), system_prompt=system) as session,
    ):
        write(f"{loaded.info.name}: {HELP} an answer\n")
        _converse(session, params, max_tokens)
        if verbose:
            tell_memory(context)


def _converse(
    session: ChatSession, params: SamplingParams, max_tokens: int | None
) -> None:
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            write("\n")
            return
        except KeyboardInterrupt:  # nothing to stop: a fresh line, as a shell does
            write("\n")
            continue
        if text == "/exit":
            return
        if text.startswith("/"):
            _command(session, text)
        elif text:
            _turn(session, text, params, max_tokens)


def _command(session: ChatSession, text: str) -> None:
    if text == "/reset":
        session.reset()
        write("the conversation starts again\n")
    elif text == "/history":
        for message in session.history:
            write(f"{message.role}: {message.content}\n")
    else:
        write(f"unknown command {text}: {HELP} an answer\n")


def _turn(
    session: ChatSession, text: str, params: SamplingParams, max_tokens: int | None
) -> None:
    try:
        with (
            session.stream(text, params, max_tokens=max_tokens) as stream,
            _ctrl_c_stops(stream),
        ):
            for delta in stream:
                write(delta.text)
            write("\n")
    except OperationCancelledError:
        write("(stopped before the first word)\n")
    except ContextOverflowError as error:
        write(f"({error}; /reset starts again)\n")


@contextmanager
def _ctrl_c_stops(stream: Stream) -> Iterator[None]:
    """
    Ctrl-C ends the answer in good order and keeps what there is of it.

    While the prompt is still being read there is nothing to keep: then it cancels.
    """

    def on_interrupt(number: int, frame: Any) -> None:
        if stream.started:
            stream.stop()
        else:
            stream.cancel()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
