"""
How to create a context.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import Attribute, field, frozen

from llmcore.params.validators import INT32_MAX, flag, integer, one_of

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Element types of the key and value cache."""


LEAST_SIZE = 8
"""Tokens that a sequence must be able to hold."""


def _scheduling(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value not in ("parallel", "fifo") and not callable(
        getattr(value, "share", None)
    ):
        raise ValueError(
            "scheduling must be 'parallel', 'fifo' or an object with a method "
            f"share(waiting, budget), got {value!r}"
        )


_one_size = integer(LEAST_SIZE, INT32_MAX, "auto")


def _as_pair(value: Any) -> Any:
    """A list, as JSON has it, is as good as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _context_size(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple):
        _one_size(instance, attribute, value)
        return
    whole = all(type(size) is int for size in value)
    if len(value) != 2 or not whole:
        raise TypeError(
            f"context_size must be (least, most), two integers, got {value!r}"
        )
    if not LEAST_SIZE <= value[0] <= value[1] <= INT32_MAX:
        raise ValueError(
            f"context_size must be (least, most) with {LEAST_SIZE} <= least <= most <= "
            f"{INT32_MAX}, got {value!r}"
        )


@frozen(kw_only=True)
class ContextParams:
    """
    How to create a context. Sizes are in tokens.

    Args:
        context_size: Tokens that each sequence can hold; ``"auto"`` means the length
            that the model was trained for, at most 4096, and less if the memory has
            not so much; ``(least, most)`` means what fits between the two, not above
            the trained length. An engine may round up; `Context.params` says what was
            given.

        sequences: How many sequences the context can hold.

        batch_size: Most tokens that are handed to the engine in one call.

        micro_batch_size: Most tokens that the engine computes at once; not above
            ``batch_size``.

        threads: CPU threads for single tokens; ``None`` means the physical share that
            llmcore chooses (the number of usable cores).

        threads_batch: CPU threads for prompts; ``None`` means ``threads``.

        kv_type_k: Element type of the key cache, one of `KV_TYPES`.

        kv_type_v: Element type of the value cache; a quantised one needs flash
            attention.

        flash_attention: ``"auto"`` lets the engine choose.

        embeddings: Create the context for embeddings instead of generation.

        offload_kv: Keep the cache of offloaded layers on the GPU.

        scheduling: Who shares a step of the engine: ``"parallel"`` gives everyone who
            waits a part, ``"fifo"`` serves whole prompts in the order of their
            priority and arrival, or a policy of your own (see `SchedulingPolicy`).
            Core's own, as all that follows: a backend need not look.

        deterministic: Evaluate one sequence at a time, from its start, in pieces of
            ``batch_size``: a greedy answer then depends on its prompt only, not on
            neighbours nor on what the sequence held. Slower.

        max_waiting: How many may wait for a sequence at once; one more gets
            `QueueFullError`.

        checkpoint_bytes: Most memory for saved states of caches that cannot drop a
            part of themselves (sliding window, recurrent); 0 keeps none.
    """

    context_size: int | Literal["auto"] | tuple[int, int] = field(
        default="auto", converter=_as_pair, validator=_context_size
    )
    sequences: int = field(default=1, validator=integer(1, 256))
    batch_size: int = field(default=512, validator=integer(1, 1_048_576))
    micro_batch_size: int = field(default=512, validator=integer(1, 1_048_576))
    threads: int | None = field(default=None, validator=integer(1, 1024, None))
    threads_batch: int | None = field(default=None, validator=integer(1, 1024, None))
    kv_type_k: str = field(default="f16", validator=one_of(*KV_TYPES))
    kv_type_v: str = field(default="f16", validator=one_of(*KV_TYPES))
    flash_attention: bool | Literal["auto"] = field(
        default="auto", validator=one_of("auto", True, False)
    )
    embeddings: bool = field(default=False, validator=flag)
    offload_kv: bool = field(default=True, validator=flag)
    scheduling: Any = field(default="parallel", validator=_scheduling)
    deterministic: bool = field(default=False, validator=flag)
    max_waiting: int = field(default=64, validator=integer(0))
    checkpoint_bytes: int = field(default=256 << 20, validator=integer(0, 2**62))

    def __attrs_post_init__(self) -> None:
        if self.batch_size < self.sequences:
            raise ValueError(
                f"batch_size must be at least sequences ({self.sequences}), "
                f"got {self.batch_size}"
            )
        quantised = self.kv_type_v.startswith(("q", "iq"))
        if quantised and self.flash_attention is False:
            raise ValueError(
                f"kv_type_v={self.kv_type_v!r} needs flash attention: "
                "leave flash_attention at 'auto' or set it to True"
            )

    @property
    def size(self) -> int:
        """
        ``context_size`` where it is a number, as in all that crosses the seam.

        Raises:
            TypeError: It is still to be chosen.
        """
        if not isinstance(self.context_size, int):
            raise TypeError(f"context_size={self.context_size!r} is no number yet")
        return self.context_size
