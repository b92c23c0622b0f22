"""What is known of a model file before the library sees it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from llmcore.gguf_header import InvalidFileError
from llmcore.values import ModelInfo


@frozen(kw_only=True)
class Sizes:
    """
    The sizes of a network, in values.

    ``keys`` is the width of the keys of one position in one layer, ``cache_bytes`` what
    one element of the cache takes. ``positions`` is how many tokens the cache holds if
    the file says so; None if one can choose.
    """

    vocabulary: int
    embedding: int
    heads: int
    layers: int
    feed_forward: int
    keys: int
    cache_bytes: int
    positions: int | None = None


@frozen(kw_only=True, eq=False)
class Vocabulary:
    """
    The text of each token, ``b""`` for a control token, and the tokens of single bytes.

    ``space_first`` is whether the tokenizer is to put a space before a text, and
    ``separator`` a character that never joins its neighbours; None where the library
    does not tokenize, or puts no space.
    """

    pieces: tuple[bytes, ...]
    byte_tokens: Mapping[int, int]
    space_first: bool = True
    separator: bytes | None = None


@frozen(kw_only=True, eq=False)
class ModelFile:
    """
    A file that the library can load, and all that is known of it.

    Args:
        kind: The model type, in the library's words.

        info: The facts for core, but for capabilities and the build.

        sizes: Of its network.

        vocabulary: Of its tokenizer.

        own_tokenizer: Whether the library tokenizes.

        mappable: Whether its weights can be used where they lie in the file.

        scratch: Whether each layer computes in the same memory.

        copies_values: Whether each layer makes a copy of all cached values.
    """

    kind: str
    info: ModelInfo
    sizes: Sizes
    vocabulary: Vocabulary
    own_tokenizer: bool = False
    mappable: bool = False
    scratch: bool = False
    copies_values: bool = False


def check_heads(embedding: int, heads: int, groups: int = 1) -> None:
    """
    Check that a vector divides into heads as the library computes with them.

    With a single head it takes a copy into another shape for one into the same, and
    writes past the end.

    Raises:
        InvalidFileError: With the reason in words.
    """
    if heads < 2:
        raise InvalidFileError(f"ctransformers needs 2 heads or more, not {heads}")
    if embedding % heads or heads % groups or embedding // heads % 2:
        raise InvalidFileError(
            f"{embedding} values do not divide into {heads} heads of even size, "
            f"in groups of {groups}"
        )
