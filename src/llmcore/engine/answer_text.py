"""
`AnswerText`: the text of one answer, told piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmcore.engine.reasoning import ReasoningMarks, ReasoningSplitter
from llmcore.engine.text import TextAssembler
from llmcore.events import ReasoningDelta, StreamEvent, TextDelta


class AnswerText:
    """
    Lives as long as its answer.

    Args:
        stops: The stop strings.

        marks: How thoughts are marked; None if they are not.
    """

    def __init__(self, stops: Iterable[str], marks: ReasoningMarks | None) -> None:
        self._assembler = TextAssembler(stops)
        self._splitter = ReasoningSplitter(marks)
        self._texts: list[str] = []
        self._thoughts: list[str] = []

    @property
    def text(self) -> str:
        """All that was told of the answer."""
        return "".join(self._texts)

    @property
    def reasoning(self) -> str:
        """All that was told of the thoughts before it."""
        return "".join(self._thoughts)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._assembler.stopped

    def push(self, piece: bytes, token: int, count: int) -> list[StreamEvent]:
        """
        What became certain with a token.

        Args:
            piece: Its bytes.

            token: Its number, which may be a mark.

            count: How many tokens the answer has with it.
        """
        text = self._assembler.push(piece)
        return self._events(self._splitter.split(text, token), count)

    def finish(self, count: int) -> list[StreamEvent]:
        """The answer ended: what was held back and is text after all."""
        rest = self._assembler.finish()
        return [
            *self._events(self._splitter.split(rest), count),
            *self._events(self._splitter.finish(), count),
        ]

    def _events(
        self, parts: Iterable[tuple[bool, str]], count: int
    ) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for thought, part in parts:
            if thought:
                self._thoughts.append(part)
                events.append(ReasoningDelta(reasoning=part, tokens=count))
            else:
                self._texts.append(part)
                events.append(TextDelta(text=part, tokens=count))
        return events
