"""
What a reply of the child may say, beyond its type: the child is not trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llmcore.isolation.wire import Created, Drawn, MalformedError
from llmcore.values import ContextMemory, Device, ModelInfo

LARGEST_VOCABULARY = 1 << 24
LARGEST_EMBEDDING = 1 << 22


def check_devices(devices: list[Device]) -> None:
    """Memory is not negative."""
    for device in devices:
        if device.total < 0 or device.free < 0:
            raise MalformedError(f"device {device.name!r} with less than no memory")


def check_info(info: ModelInfo) -> None:
    """Sizes are possible, and all tokens are tokens."""
    if not 0 < info.vocab_size <= LARGEST_VOCABULARY:
        raise MalformedError(f"a vocabulary of {info.vocab_size} tokens")
    if not 0 <= info.embedding_size <= LARGEST_EMBEDDING:
        raise MalformedError(f"embeddings of size {info.embedding_size}")
    if info.size_bytes < 0 or info.trained_context < 0:
        raise MalformedError("a negative size")
    check = check_tokens(info.vocab_size)
    check([token for token in (info.bos_token, info.eos_token) if token is not None])
    check(info.end_tokens)
    check(info.special_tokens.values())


def check_tokens(vocab_size: int) -> Callable[[Iterable[int]], None]:
    """A check that tokens are below this."""

    def check(tokens: Iterable[int]) -> None:
        for token in tokens:
            if not 0 <= token < vocab_size:
                raise MalformedError(f"a token {token} of {vocab_size}")

    return check


def check_drawn(vocab_size: int, most: int) -> Callable[[list[Drawn]], None]:
    """A check of so many drawn tokens, at most."""
    check_each = check_tokens(vocab_size)

    def check(drawn: list[Drawn]) -> None:
        if len(drawn) > most:
            raise MalformedError(f"{len(drawn)} tokens where {most} were asked for")
        check_each(token for token, _ in drawn)

    return check


def check_created(created: Created) -> None:
    """The size of the context is a number now."""
    if not isinstance(created.params.context_size, int):
        raise MalformedError("a context of no definite size")


def check_memory(memory: ContextMemory) -> None:
    """Not negative."""
    if memory.kv_cache < 0 or memory.compute < 0:
        raise MalformedError("a context of less than no memory")


def check_bounds(context_size: int) -> Callable[[tuple[int, int]], None]:
    """A check that positions are within a sequence of this size."""

    def check(bounds: tuple[int, int]) -> None:
        first, last = bounds
        if bounds != (-1, -1) and not 0 <= first <= last < context_size:
            raise MalformedError(f"bounds {bounds} of {context_size}")

    return check
