"""
What an answer is: when it ends, what is told of it, what it may use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import Attribute, field, frozen

from llmcore.params.validators import INT32_MAX, flag, integer, number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    LogitsProcessor = Callable[
        [Sequence[int], NDArray[np.float32]], NDArray[np.float32] | None
    ]

T = TypeVar("T")


def _tuple(value: str | Iterable[T] | T) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str | int) else tuple(value)  # type: ignore[arg-type]


def _no_empty_text(
    instance: object, attribute: Attribute[Any], value: tuple[object, ...]
) -> None:
    for text in value:
        if not isinstance(text, str) or not text:
            raise ValueError(f"stop must be texts that are not empty, got {text!r}")


def _tokens(
    instance: object, attribute: Attribute[Any], value: tuple[object, ...]
) -> None:
    for token in value:
        if not isinstance(token, int) or not 0 <= token <= INT32_MAX:
            raise ValueError(f"{attribute.name} must be token numbers, got {token!r}")


def _callables(
    instance: object, attribute: Attribute[Any], value: tuple[object, ...]
) -> None:
    for processor in value:
        if not callable(processor):
            raise TypeError(f"{attribute.name} must be callable, got {processor!r}")


@frozen(kw_only=True)
class Shift:
    """
    How a full sequence makes room: old tokens are dropped, and what follows moves up.

    What moved up keeps what it has seen of the dropped tokens, so the answer may differ
    from one without them (Xiao et al., "Efficient Streaming Language Models with
    Attention Sinks").

    Args:
        keep: First tokens that stay in place.

        drop: Tokens after them that go; None means half of the rest.
    """

    keep: int = field(default=4, validator=integer(0))
    drop: int | None = field(default=None, validator=integer(1, INT32_MAX, None))


def _overflow(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value != "error" and not isinstance(value, Shift) and not callable(value):
        raise ValueError(
            f"overflow must be 'error', a Shift or a callable, got {value!r}"
        )


def _predictor(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not callable(getattr(value, "predict", None)):
        raise TypeError(f"predictor must be a Predictor, got {value!r}")


@frozen(kw_only=True)
class GenerationParams:
    """
    How an answer ends and what it may use; `SamplingParams` says how its tokens are
    chosen.

    Args:
        max_tokens: End after so many; None means when the model or the space ends.

        min_tokens: Do not draw an end or stop token before so many.

        stop: End before this text, or the earliest of these.

        stop_tokens: End at these tokens too, which are not part of the answer.

        ignore_eos: Go on after the model's end tokens, as if they were text.

        logprobs: Tell the log probability of each token, and of so many of the most
            likely ones; None tells none. They are those of the model: before bias,
            penalties and temperature.

        logits_processors: Each is called with all tokens so far and the logits, shape
            ``(vocab_size,)``, float32, which it may change or replace; on the
            engine's thread, so keep them short.

        overflow: When the sequence is full: ``"error"`` ends the answer with the
            reason ``"context_full"``; a `Shift` drops old tokens and goes on; or a
            callable that is given the tokens and returns a `Shift`.

        predictor: Guesses what comes next, to evaluate several tokens at once; see
            `llmcore.prediction`.

        priority: Higher is served first when a step cannot take all.

        wait: Wait in line if the sequence has another user, instead of
            `SequenceBusyError`.

        timeout: Seconds until the answer must be complete, waiting included; then
            `OperationTimeoutError`. None means no limit.
    """

    max_tokens: int | None = field(default=None, validator=integer(1, INT32_MAX, None))
    min_tokens: int = field(default=0, validator=integer(0))
    stop: tuple[str, ...] = field(
        default=(), converter=_tuple, validator=_no_empty_text
    )
    stop_tokens: tuple[int, ...] = field(
        default=(), converter=_tuple, validator=_tokens
    )
    ignore_eos: bool = field(default=False, validator=flag)
    logprobs: int | None = field(default=None, validator=integer(0, INT32_MAX, None))
    logits_processors: tuple[LogitsProcessor, ...] = field(
        default=(), converter=tuple, validator=_callables
    )
    overflow: Any = field(default="error", validator=_overflow)
    predictor: Any = field(default=None, validator=_predictor)
    priority: int = field(default=0, validator=integer(-INT32_MAX))
    wait: bool = field(default=False, validator=flag)
    timeout: float | None = field(default=None)

    @timeout.validator
    def _check_timeout(
        self, attribute: Attribute[float | None], value: float | None
    ) -> None:
        if value is not None:
            number(0)(self, attribute, value)
