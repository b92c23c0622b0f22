"""Telling thoughts from the answer, however the text is cut into tokens."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmcore.engine.reasoning import ReasoningMarks, ReasoningSplitter

BEGIN, END = 900, 901
MARKS = ReasoningMarks()
INSIDE = ReasoningMarks(inside=True)
TOKENS = ReasoningMarks(begin_token=BEGIN, end_token=END)

# Marks, beginnings of marks, and what only looks like one.
parts = st.sampled_from(["<think>", "</think>", "<", "</", "<th", "k>", "a", " ", "é"])
texts = st.lists(parts, max_size=8).map("".join)
cuts = st.lists(st.integers(0, 60), max_size=10)


def cut(text: str, at: list[int]) -> list[str]:
    marks = [0, *sorted(n % (len(text) + 1) for n in at), len(text)]
    return [text[a:b] for a, b in pairwise(marks)]


def split(marks: ReasoningMarks | None, pieces: list[str | int]) -> tuple[str, str]:
    """All thoughts and all of the answer; a number is a control token."""
    splitter = ReasoningSplitter(marks)
    told: list[tuple[bool, str]] = []
    for piece in pieces:
        if isinstance(piece, int):
            told += splitter.split("", piece)
        else:
            told += splitter.split(piece, 1)
    told += splitter.finish()
    assert all(part for _, part in told), "no event is empty"
    thoughts = "".join(part for thought, part in told if thought)
    return thoughts, "".join(part for thought, part in told if not thought)


class TestAnyCutting:
    @pytest.mark.parametrize("marks", [None, MARKS, INSIDE, TOKENS])
    @given(text=texts, at=cuts)
    @example(text="<think>a</think>b", at=[1, 2, 3, 8, 9, 10])
    @example(text=" <think>a</think>b", at=[1])
    def test_the_cutting_does_not_matter(
        self, marks: ReasoningMarks | None, text: str, at: list[int]
    ) -> None:
        """However a text comes in pieces, it is split as if it came at once."""
        assert split(marks, list(cut(text, at))) == split(marks, [text])

    @given(text=texts, at=cuts)
    def test_without_marks_all_is_answer(self, text: str, at: list[int]) -> None:
        """A model that marks nothing thinks nothing, whatever it writes."""
        assert split(None, list(cut(text, at))) == ("", text)

    @given(st.text("ab <>/é"), st.text("ab é"), cuts)
    def test_a_thought_and_an_answer(
        self, thought: str, said: str, at: list[int]
    ) -> None:
        """What is between the marks is thought, what follows is the answer."""
        text = f"<think>{thought}</think>{said}"
        assert split(MARKS, list(cut(text, at))) == (thought, said)

    @given(st.text("ab <>/é"), st.text("ab é"), cuts)
    def test_the_prompt_may_begin_it(
        self, thought: str, said: str, at: list[int]
    ) -> None:
        """Where the prompt ends with the mark, the answer begins as a thought."""
        text = f"{thought}</think>{said}"
        assert split(INSIDE, list(cut(text, at))) == (thought, said)


class TestMarks:
    def test_only_at_the_beginning(self) -> None:
        """A mark in the middle of an answer is text, as an answer about HTML has it."""
        text = "Write <think>x</think>."
        assert split(MARKS, [text]) == ("", text)

    def test_space_before_it(self) -> None:
        """White space before the first mark does not hide it, and is not answer."""
        assert split(MARKS, ["\n <think>a</think>b"]) == ("a", "b")

    def test_half_a_mark_is_text(self) -> None:
        """An answer that ends within a mark keeps what was held back."""
        assert split(MARKS, ["<thi"]) == ("", "<thi")
        assert split(INSIDE, ["so </thi"]) == ("so </thi", "")

    def test_control_tokens(self) -> None:
        """Marks that are control tokens have no text and count as well."""
        assert split(TOKENS, [BEGIN, "hm", END, "yes"]) == ("hm", "yes")

    def test_text_is_not_held_without_need(self) -> None:
        """What cannot begin a mark comes at once."""
        splitter = ReasoningSplitter(INSIDE)
        assert list(splitter.split("well", 1)) == [(True, "well")]
        assert list(splitter.split("a<", 1)) == [(True, "a")]
        assert list(splitter.split("b", 1)) == [(True, "<b")]
