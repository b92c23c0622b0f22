"""The script of a null backend: what it is, and where it waits, fails or lies."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from attrs import define, field

from llmcore.backends.null import INFO
from llmcore.backends.null.cache import Lie
from llmcore.backends.null.gate import Gate, Rule
from llmcore.errors import (
    BackendError,
    ContextCreationError,
    DecodeError,
    ModelLoadError,
    StateError,
)
from llmcore.values import CacheKind, Capability

OPS = (
    *("devices", "load", "close_backend"),
    *("tokenize", "piece", "create_context", "close_model"),
    *("decode", "logits", "sample", "embedding", "bounds", "memory", "clear"),
    *("remove", "copy", "shift", "save_state", "load_state", "close_context"),
    *("create_sampler", "accept", "close_sampler"),
)
"""Every operation that can be gated, failed or crashed; `abort` never waits."""


class Failure(NamedTuple):
    """A scripted failure: what to raise, after how many tokens of a batch."""

    error: Exception
    applied: int


@define(eq=False)
class _Fail:
    rule: Rule
    error: Exception | type[Exception] | None
    applied: int

    def now(self) -> Failure:
        error = _default_error(self.rule.op) if self.error is None else self.error
        if isinstance(error, type):
            error = error(f"scripted failure of {self.rule.op}")
        return Failure(error, self.applied)


def _default_error(op: str) -> Exception:
    reason = f"scripted failure of {op}"
    if op == "load":
        return ModelLoadError(None, reason)
    kinds = {
        "create_context": ContextCreationError,
        "decode": DecodeError,
        "load_state": StateError,
    }
    return kinds.get(op, BackendError)(reason)


@define(kw_only=True, eq=False)
class NullScript:
    """
    What one `NullBackend` is and does; may be changed while it runs. Any thread.

    Args:
        answer: What the model says, followed by the end token; None for readable
            nonsense without end. It goes on after the longest start of it that the
            cache ends with, so a prompt must not end like the answer starts.

        name: The model's name. Models of different names speak differently, and
            refuse each other's saved state.

        cache_kind: What the model remembers; decides what `remove` answers.

        window: Positions that a sliding window keeps.

        lie: Answer True to every removal of a part. True: `bounds` says empty then,
            and what follows is wrong until the cache is cleared. ``"stay"``: nothing
            is removed.

        capabilities: What is declared; narrower than that of the plugin.

        exclusion: The scope within which overlapping calls are violations.

        capacity_bytes: Simulated memory of the device; None for as much as needed.

        release_delay: Freed memory counts as used until `Ledger.settle`.

        model_bytes: Memory of a model.

        kv_bytes_per_token: Memory of a context, for each token it can hold.

        trained_context: The length that the model was trained for, in tokens.
    """

    answer: str | None = None
    name: str = "null"
    cache_kind: CacheKind = CacheKind.FULL
    window: int = 16
    lie: Lie = False
    capabilities: frozenset[Capability] = INFO.capabilities
    exclusion: Literal["context", "model", "device", "process"] = "context"
    capacity_bytes: int | None = None
    release_delay: bool = False
    model_bytes: int = 1 << 20
    kv_bytes_per_token: int = 64
    trained_context: int = 2048
    _changed: threading.Condition = field(factory=threading.Condition, init=False)
    _gates: list[Gate] = field(factory=list, init=False)
    _crashes: list[Rule] = field(factory=list, init=False)
    _fails: list[_Fail] = field(factory=list, init=False)

    def gate(
        self,
        op: str,
        *,
        nth: int = 1,
        sequence: int | None = None,
        timeout: float = 30.0,
    ) -> Gate:
        """
        Hold calls of an operation.

        Args:
            op: One of `OPS`.

            nth: The first call to hold, counted from now, from 1.

            sequence: Count only calls that touch this sequence.

            timeout: Seconds after which a held call raises `TimeoutError`, so that no
                test hangs for ever.
        """
        gate = Gate(_rule(op, nth, None, sequence), self._changed, timeout)
        with self._changed:
            self._gates.append(gate)
        return gate

    def fail(
        self,
        op: str,
        *,
        nth: int = 1,
        times: int | None = 1,
        error: Exception | type[Exception] | None = None,
        applied: int = 0,
        sequence: int | None = None,
    ) -> None:
        """
        Make calls of an operation raise.

        Args:
            op: One of `OPS`.

            nth: The first call to fail, counted from now, from 1.

            times: How many calls fail from there on; None for all of them.

            error: What to raise; None for the error that the seam names for it.

            applied: Tokens of the batch that stay in the cache (`decode` only).

            sequence: Count only calls that touch this sequence.
        """
        with self._changed:
            self._fails.append(_Fail(_rule(op, nth, times, sequence), error, applied))

    def crash(self, op: str, *, nth: int = 1) -> None:
        """Make a call end the whole process as a native abort does."""
        with self._changed:
            self._crashes.append(_rule(op, nth, 1, None))

    # -- for the null backend ------------------------------------------------------

    def reach(
        self,
        op: str,
        sequences: Iterable[int] = (),
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Failure | None:
        """
        Wait at the gates, crash, or say that the call is to fail.

        Args:
            op: The operation that was entered.

            sequences: The sequences it touches.

            interrupted: Ends the wait at a gate when it turns true; see `wake`.
        """
        if not (self._gates or self._crashes or self._fails):
            return None
        touched = frozenset(sequences)
        with self._changed:
            gates = [g for g in self._gates if g.rule.matches(op, touched)]
            crashes = [r for r in self._crashes if r.matches(op, touched)]
            fails = [f for f in self._fails if f.rule.matches(op, touched)]
        for gate in gates:
            gate.hold(interrupted)
        if crashes:
            os.abort()
        return fails[0].now() if fails else None

    def wake(self) -> None:
        """Make waiting calls look again whether they are interrupted."""
        with self._changed:
            self._changed.notify_all()


def _rule(op: str, nth: int, times: int | None, sequence: int | None) -> Rule:
    if op not in OPS:
        raise ValueError(f"op must be one of {', '.join(OPS)}, got {op!r}")
    if nth < 1:
        raise ValueError(f"nth must be at least 1, got {nth}")
    return Rule(op, nth, times, sequence)
