from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmcore.engine.text import TextAssembler

# Few letters, so that stop strings occur, overlap and nearly occur all the time.
texts = st.text("abé", max_size=12)
stop_lists = st.lists(st.text("abé", min_size=1, max_size=4), max_size=3)


def before_earliest(text: str, stops: list[str]) -> str:
    """The text before the stop string that begins first: what must come out."""
    return min((text.partition(stop)[0] for stop in stops), key=len, default=text)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(marks)]


class TestAnySplit:
    @given(texts, stop_lists, st.lists(st.integers(0, 30), max_size=12))
    @example("abc", ["abd", "b"], [1, 2])
    def test_stops(self, text: str, stops: list[str], cuts: list[int]) -> None:
        """However the bytes are cut, the text ends before the earliest stop string."""
        assembler = TextAssembler(stops)

        pushed = "".join(assembler.push(part) for part in cut(text.encode(), cuts))
        whole = pushed + assembler.finish()

        assert before_earliest(text, stops) == whole
        assert any(stop in text for stop in stops) == assembler.stopped

    @given(st.binary(max_size=20), st.lists(st.integers(0, 30), max_size=12))
    def test_bytes(self, data: bytes, cuts: list[int]) -> None:
        """However any bytes are cut, they decode as they do in one piece."""
        assembler = TextAssembler()

        pushed = "".join(assembler.push(part) for part in cut(data, cuts))

        assert data.decode(errors="replace") == pushed + assembler.finish()

    @given(texts, stop_lists)
    def test_holds_back_no_more_than_needed(self, text: str, stops: list[str]) -> None:
        """Text is held back only while it may still become a stop string."""
        assembler = TextAssembler(stops)

        out = assembler.push(text.encode())

        if not assembler.stopped:
            held = text.removeprefix(out)
            assert not held or any(stop.startswith(held) for stop in stops)


class TestCharacters:
    def test_cut_in_two(self) -> None:
        """A character comes out when its last byte is there."""
        first, *others = "€".encode()
        assembler = TextAssembler()

        assert assembler.push(bytes([first])) == ""
        assert assembler.push(bytes(others) + b"!") == "€!"

    def test_unfinished(self) -> None:
        """A character that never became whole ends as U+FFFD."""
        assembler = TextAssembler()
        assembler.push("€".encode()[:2])

        assert assembler.finish() == "\ufffd"


class TestStops:
    def test_held_back(self) -> None:
        """What may begin a stop string waits, and comes out when it did not."""
        assembler = TextAssembler(["</s>"])

        assert assembler.push(b"one <") == "one "
        assert assembler.push(b"b") == "<b"

    def test_stopped(self) -> None:
        """After a stop string nothing comes out any more."""
        assembler = TextAssembler(["END"])

        assert assembler.push(b"text END more") == "text "
        assert assembler.stopped
        assert assembler.push(b"more") + assembler.finish() == ""

    def test_held_at_the_end(self) -> None:
        """The beginning of a stop string at the end of the answer is text."""
        assembler = TextAssembler(["END"])
        assembler.push(b"EN")

        assert assembler.finish() == "EN"
        assert not assembler.stopped

    def test_stop_inside_an_unfinished_one(self) -> None:
        """A stop inside the beginning of another counts when that one breaks off."""
        assembler = TextAssembler(["abcd", "c"])

        assert (assembler.push(b"abc"), assembler.stopped) == ("", False)
        assert (assembler.push(b"x"), assembler.stopped) == ("ab", True)

    def test_empty(self) -> None:
        """An empty stop string is refused."""
        with pytest.raises(ValueError, match="must not be empty"):
            TextAssembler(["a", ""])
