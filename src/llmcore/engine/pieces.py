"""
`Pieces`: the bytes of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmcore.lifecycle import Node, Operation


class Pieces:
    """
    Looks each token up once; lives as long as its model, and does not keep it alive.

    Args:
        node: Of the model.

        vocab_size: Tokens are numbers below this.
    """

    def __init__(self, node: Node, vocab_size: int) -> None:
        self._node = node
        self._vocab_size = vocab_size
        self._known: dict[int, bytes] = {}

    def of(self, token: int, operation: Operation | None = None) -> bytes:
        """
        The bytes of a token.

        Args:
            token: Its number.

            operation: The work that this is a part of, if any.

        Raises:
            ValueError: The vocabulary has no such token.
        """
        piece = self._known.get(token)
        if piece is None:
            self.check([token])
            with self._node.use(operation) as native:
                piece = self._known[token] = native.piece(token)
        return piece

    def check(self, tokens: Iterable[int]) -> None:
        """
        Raises:
            ValueError: One of them is not a token number of this vocabulary.
        """
        size = self._vocab_size
        for token in tokens:
            if not isinstance(token, int) or not 0 <= token < size:
                raise ValueError(
                    f"tokens must be whole numbers from 0 to {size - 1}, got {token!r}"
                )
