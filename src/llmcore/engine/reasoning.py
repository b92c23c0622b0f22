"""
Telling what a model thinks from what it answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import frozen


@frozen(kw_only=True)
class ReasoningMarks:
    """
    How a model marks what it thinks before it answers.

    Attributes:
        begin: Text before it; only counts at the beginning of an answer.

        end: Text after it.

        begin_token: The same as a control token, which has no text.

        end_token: The same as a control token.

        inside: Whether the prompt ends with ``begin`` already.
    """

    begin: str = "<think>"
    end: str = "</think>"
    begin_token: int | None = None
    end_token: int | None = None
    inside: bool = False


class ReasoningSplitter:
    """
    Splits the text of one answer as it comes; lives as long as the answer.

    The cost of a token does not grow with the answer.

    Args:
        marks: How thoughts are marked; None if they are not.
    """

    def __init__(self, marks: ReasoningMarks | None) -> None:
        self._marks = marks
        self._inside = marks is not None and marks.inside
        self._at_start = True
        self._held = ""

    def split(self, text: str, token: int | None = None) -> Iterable[tuple[bool, str]]:
        """
        Take more text; returns the parts that are certain: whether thought, and text.

        Args:
            text: What became certain with this token.

            token: The token, which may be a mark itself.
        """
        if self._marks is None:
            return ((False, text),) if text else ()
        return self._split(self._marks, text, token)

    def _split(
        self, marks: ReasoningMarks, text: str, token: int | None
    ) -> Iterator[tuple[bool, str]]:
        self._held += text
        yield from self._certain(marks)
        if token is not None and token in (marks.begin_token, marks.end_token):
            yield from self.finish()
            self._inside = token == marks.begin_token
            self._at_start = False

    def _certain(self, marks: ReasoningMarks) -> Iterator[tuple[bool, str]]:
        while self._held:
            mark = marks.end if self._inside else marks.begin
            at = self._held.find(mark) if self._inside or self._at_start else -1
            if at >= 0 and (self._inside or not self._held[:at].strip()):
                before, self._held = self._held[:at], self._held[at + len(mark) :]
                if before and self._inside:
                    yield True, before
                self._inside = not self._inside
                self._at_start = False
                continue
            sure = len(self._held) - self._possible(mark)
            if not sure:
                return
            part, self._held = self._held[:sure], self._held[sure:]
            if part.strip():
                self._at_start = False
            yield self._inside, part
            return

    def _possible(self, mark: str) -> int:
        """How long an end of the held text may be the beginning of the mark."""
        if not self._inside:  # only white space may stand before its beginning
            begins = self._at_start and mark.startswith(self._held.lstrip())
            return len(self._held) if begins else 0
        for length in range(min(len(mark) - 1, len(self._held)), 0, -1):
            if mark.startswith(self._held[-length:]):
                return length
        return 0

    def finish(self) -> Iterator[tuple[bool, str]]:
        """The answer ended: what was held back is text after all."""
        held, self._held = self._held, ""
        if held:
            yield self._inside, held
