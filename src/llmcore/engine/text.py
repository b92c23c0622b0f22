"""
From the bytes of tokens to text that is safe to show: whole characters, no stop string.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable


class TextAssembler:
    """
    Turns the bytes of one answer into text as they come; lives as long as the answer.

    A character that is cut in two waits for its other part, bytes that are no UTF-8
    become U+FFFD. The text ends before the stop string that begins earliest; what may
    be the beginning of one is held back. All that comes out is the same however the
    bytes were cut. The cost of a token does not grow with the answer.

    Args:
        stops: The stop strings; none of them empty.
    """

    def __init__(self, stops: Iterable[str] = ()) -> None:
        self._stops = tuple(stops)
        if "" in self._stops:
            raise ValueError("a stop string must not be empty")
        self._longest = max(map(len, self._stops), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found; no more text will come then."""
        return self._stopped

    def push(self, data: bytes) -> str:
        """Take the bytes of the next token; returns the text that is certain now."""
        text = self._decoder.decode(data)
        return self._take(text, final=False) if self._stops else text

    def finish(self) -> str:
        """End the answer; returns what was held back and turned out to be text."""
        return self._take(self._decoder.decode(b"", final=True), final=True)

    def _take(self, delta: str, *, final: bool) -> str:
        if self._stopped:
            return ""
        text = self._held + delta
        certain = len(text) if final else self._certain(text)
        stop = min((at for s in self._stops if (at := text.find(s)) >= 0), default=None)
        # A whole stop may lie inside one that began earlier and is not whole yet.
        if stop is not None and stop <= certain:
            self._stopped, self._held = True, ""
            return text[:stop]
        self._held = text[certain:]
        return text[:certain]

    def _certain(self, text: str) -> int:
        """How much of the text cannot be the beginning of a stop string."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            tail = text[start:]
            if any(stop.startswith(tail) for stop in self._stops):
                return start
        return len(text)
