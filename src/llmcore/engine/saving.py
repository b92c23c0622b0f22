"""
A sequence to a file and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmcore.engine.engine import Engine
from llmcore.engine.job import Job
from llmcore.errors import StateError, StateMismatchError
from llmcore.state_file import (
    OnMismatch,
    Path,
    SavedState,
    StateHeader,
    check,
    read,
    write,
)
from llmcore.values import Capability


def save(
    engine: Engine,
    job: Job,
    path: Path,
    backend: str,
    chat: Mapping[str, Any] | None = None,
) -> None:
    """
    Write a job's sequence to a file; only its tokens, where the backend has no state.

    Raises:
        OSError: The file cannot be written; an old one is untouched.
    """
    if Capability.STATE_IO in engine.info.capabilities:
        tokens, payload = engine.save(job)
    else:
        tokens, payload = list(job.slot.tokens), b""
    header = _header(engine, backend, "sequence" if chat is None else "chat")
    state = SavedState(header=header, tokens=tuple(tokens), payload=payload, chat=chat)
    write(path, state)


def load(
    engine: Engine,
    job: Job,
    path: Path,
    backend: str,
    on_mismatch: OnMismatch,
    believe: Callable[[SavedState], object],
) -> None:
    """
    Replace a job's sequence by what a file holds.

    Args:
        engine: Of the context.

        job: The claim on the sequence.

        path: The file.

        backend: Name of the backend here.

        on_mismatch: What to do if the state is of another engine: raise, or evaluate
            its tokens.

        believe: Called with what was read before anything is changed; may refuse it.

    Raises:
        OSError: The file cannot be read.

        StateError: It is damaged, or it belongs to something else (in this case, a
            `StateMismatchError` names what differs); nothing was changed.
    """
    if on_mismatch not in ("error", "evaluate"):
        raise ValueError(
            f"on_mismatch must be 'error' or 'evaluate', got {on_mismatch!r}"
        )
    saved = read(path)
    believe(saved)
    native = bool(saved.payload)
    here = _header(engine, backend, saved.header.kind)
    try:
        check(saved, here, needs_payload=native)
    except StateMismatchError:
        if on_mismatch == "error":
            raise
        check(saved, here, needs_payload=False)
        native = False
    if native:
        try:
            engine.load(job, saved.tokens, saved.payload)
        except StateError:  # of a context with another number of sequences, say
            if on_mismatch == "error":
                raise
        else:
            return
    engine.truncate(job, 0)
    if saved.tokens:
        engine.evaluate(job, saved.tokens, lambda native, row: None, "the saved state")


def _header(engine: Engine, backend: str, kind: str) -> StateHeader:
    info, params = engine.info, engine.params
    return StateHeader(
        kind=kind,
        backend=backend,
        build=info.build,
        model=info.fingerprint,
        cache_kind=info.cache_kind,
        kv_type_k=params.kv_type_k,
        kv_type_v=params.kv_type_v,
        context_size=engine.cache.size,
        vocab_size=info.vocab_size,
    )
