"""
What a state file says, as frozen values that are right or do not exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import Attribute, field, frozen
from attrs.validators import instance_of, max_len

from llmcore import __version__
from llmcore.params.validators import integer, one_of
from llmcore.state_file.strict_json import decode, encode

MOST_CHARACTERS = 4096
"""Of one text in a header."""
MOST_CHAT_BYTES = 1 << 26
MOST_TOKENS = 1 << 26


def _plain(value: Any) -> Any:
    """A member of a `enum.StrEnum` as the plain text that it is."""
    return str(value) if isinstance(value, str) else value


def _text(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be text, got {value!r}")
    if len(value) > MOST_CHARACTERS:
        raise ValueError(
            f"{attribute.name} must be at most {MOST_CHARACTERS} characters long, "
            f"got {len(value)}"
        )
    value.encode()


def _tuple(tokens: Iterable[int]) -> tuple[int, ...]:
    return tuple(tokens)


def _json_object(chat: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A copy that is exactly what reading it back will give."""
    if chat is None:
        return None
    try:
        data = encode(dict(chat))
        copy = decode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"chat must be a JSON object: {error}") from error
    if len(data) > MOST_CHAT_BYTES:
        raise ValueError(
            f"chat must be at most {MOST_CHAT_BYTES} bytes of JSON, got {len(data)}"
        )
    return copy


@frozen(kw_only=True)
class StateHeader:
    """
    Where a state comes from, which decides where it can be loaded.

    Args:
        kind: ``"sequence"``, or ``"chat"`` if the state has a chat section.

        backend: Name of the backend.

        build: The engine and its version, as in `ModelInfo.build`.

        model: Fingerprint of the weights; empty if the backend cannot say.

        cache_kind: What the model remembers, a `CacheKind`.

        kv_type_k: Element type of the key cache.

        kv_type_v: Element type of the value cache.

        context_size: Tokens that the sequence could hold.

        vocab_size: Tokens are numbers below this.

        llmcore: Version of llmcore that wrote the state.
    """

    kind: str = field(converter=_plain, validator=one_of("sequence", "chat"))
    backend: str = field(converter=_plain, validator=_text)
    build: str = field(converter=_plain, validator=_text)
    model: str = field(converter=_plain, validator=_text)
    cache_kind: str = field(converter=_plain, validator=_text)
    kv_type_k: str = field(converter=_plain, validator=_text)
    kv_type_v: str = field(converter=_plain, validator=_text)
    context_size: int = field(validator=integer(0))
    vocab_size: int = field(validator=integer(0))
    llmcore: str = field(default=__version__, converter=_plain, validator=_text)


@frozen(kw_only=True)
class SavedState:
    """
    The content of a state file.

    Args:
        header: Where it comes from.

        tokens: The token log: what the sequence holds, oldest first.

        payload: The backend's own bytes; empty if only the tokens are saved.

        chat: What a `ChatSession` adds, as a JSON object (tuples become lists); None
            exactly if the header's kind is ``"sequence"``.

    Raises:
        ValueError: A token is outside the vocabulary, or ``chat`` is not JSON or does
            not suit the kind.
    """

    header: StateHeader = field(validator=instance_of(StateHeader))
    tokens: tuple[int, ...] = field(
        converter=_tuple,
        validator=max_len(MOST_TOKENS),
        repr=lambda tokens: f"<{len(tokens)} tokens>",
    )
    payload: bytes = field(
        default=b"",
        validator=instance_of(bytes),
        repr=lambda payload: f"<{len(payload)} bytes>",
    )
    chat: Mapping[str, Any] | None = field(
        default=None, converter=_json_object, repr=False
    )

    @tokens.validator
    def _check_tokens(self, attribute: Attribute[Any], value: tuple[Any, ...]) -> None:
        size = self.header.vocab_size
        for token in value:
            if type(token) is not int or not 0 <= token < size:
                raise ValueError(
                    f"tokens must be whole numbers from 0 to {size - 1}, got {token!r}"
                )

    @chat.validator
    def _check_chat(self, attribute: Attribute[Any], value: object) -> None:
        if (value is None) != (self.header.kind == "sequence"):
            raise ValueError(f"chat does not suit kind {self.header.kind!r}")
