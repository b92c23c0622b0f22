"""
Turns chat messages into a prompt with a model's own template, which is not trusted.

The prompt is a list of parts, so that a control token that the template writes is a
number and the same characters typed by a user stay text.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmcore.errors import ChatTemplateError

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["ROLES", "ChatTemplate", "Part"]

ROLES = ("system", "user", "assistant", "tool")
"""The roles that a message can have."""

Part = str | int
"""Plain text to be tokenized as text, or the number of a control token."""

_RESERVED = ("messages", "add_generation_prompt", "bos_token", "eos_token")
_PRIVATE_USE = (
    range(0xE000, 0xF900),
    range(0xF0000, 0xFFFFE),
    range(0x100000, 0x10FFFE),
)


class ChatTemplate:
    """
    A compiled chat template; lives as long as its model. Any thread, several at once.

    Args:
        source: The Jinja source, None if the model has none.

        special_tokens: Text of each control token and its number.

        bos_token: Text that the template gets under this name, None for none.

        eos_token: The same.

        clock: Tells the time to templates that print the date.

    Raises:
        ChatTemplateError: There is no source, or it does not compile.
    """

    def __init__(
        self,
        source: str | None,
        *,
        special_tokens: Mapping[str, int],
        bos_token: str | None = None,
        eos_token: str | None = None,
        clock: Callable[[], datetime.datetime] = datetime.datetime.now,
    ) -> None:
        if source is None:
            raise ChatTemplateError(
                "the model has no chat template: pass one as chat_template="
            )
        self.source = source
        self._guard = _Guard(special_tokens)
        self._fixed = {"bos_token": bos_token or "", "eos_token": eos_token or ""}
        self._template = _compiled(source, clock)

    def __repr__(self) -> str:
        return f"<ChatTemplate of {len(self.source)} characters>"

    def render(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> list[Part]:
        """
        The prompt for these messages.

        Args:
            messages: Each with exactly a ``role`` out of `ROLES` and a ``content``,
                which may be any text.

            add_generation_prompt: End with the start of an answer.

            variables: Passed on to the template as they are: the program's own, never
                text of a user.

        Returns:
            Text and control token numbers in turn; no two texts are adjacent and none
            is empty. No part of any ``content`` becomes a number.

        Raises:
            ChatTemplateError: The template refused the messages, failed, or broke a
                limit.

            ValueError: A message or the name of a variable is not allowed.

            TypeError: A content is not text.
        """
        _check_messages(messages)
        for name in set(variables).intersection(_RESERVED):
            raise ValueError(f"{name!r} is not a free variable: rename it")
        shield = self._guard.shield([message["content"] for message in messages])
        values = {**variables, **self._fixed}
        values["add_generation_prompt"] = add_generation_prompt
        parts = self._parts(messages, values, shield, shield.cover)
        if any(map(shield.needs_care, (message["content"] for message in messages))):
            careful = self._parts(messages, values, shield, shield.cover_carefully)
            if _numbers(careful) != _numbers(parts):
                return careful
        return parts

    def _parts(
        self,
        messages: Sequence[Mapping[str, str]],
        values: Mapping[str, Any],
        shield: _Shield,
        cover: Callable[[str], str],
    ) -> list[Part]:
        guarded = [
            {"role": message["role"], "content": cover(message["content"])}
            for message in messages
        ]
        values = {**values, "messages": guarded}
        return self._guard.split(_rendered(self._template, values, shield), shield)


def _numbers(parts: list[Part]) -> list[int]:
    return [part for part in parts if isinstance(part, int)]


def _check_messages(messages: Sequence[Mapping[str, str]]) -> None:
    for index, message in enumerate(messages):
        if set(message) != {"role", "content"}:
            raise ValueError(
                f"messages[{index}] must have 'role' and 'content' and nothing else, "
                f"got {sorted(message)}"
            )
        if message["role"] not in ROLES:
            raise ValueError(
                f"messages[{index}] has the role {message['role']!r}, must be one of "
                + ", ".join(map(repr, ROLES))
            )
        if not isinstance(message["content"], str):
            kind = type(message["content"]).__name__
            raise TypeError(f"messages[{index}] must have a str as content, got {kind}")


# -- keeping text and control tokens apart ---------------------------------------------


class _Guard:
    """Knows the texts of the control tokens; lives as long as the template."""

    def __init__(self, special_tokens: Mapping[str, int]) -> None:
        self.numbers = {text: number for text, number in special_tokens.items() if text}
        longest_first = sorted(self.numbers, key=len, reverse=True)
        either = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self.token = re.compile(f"({either})")
        self.start = re.compile(f"(?={either})")
        self.longest = len(longest_first[0]) if longest_first else 0
        first = "".join({re.escape(text[0]) for text in self.numbers})
        last = "".join({re.escape(text[-1]) for text in self.numbers})
        self.edge = re.compile(f"(?<=[{first}])|(?=[{last}])" if first else r"(?!)")
        self.singles = [text for text in self.numbers if len(text) == 1]
        self.prefixes = {text[:n] for text in self.numbers for n in range(1, len(text))}
        self.suffixes = {text[n:] for text in self.numbers for n in range(1, len(text))}

    def shield(self, contents: Sequence[str]) -> _Shield:
        return _Shield(self, _unused("".join([*contents, *self.numbers])))

    def split(self, prompt: str, shield: _Shield) -> list[Part]:
        """The prompt in parts, its sentinels removed."""
        parts: list[Part] = []
        for index, piece in enumerate(self.token.split(prompt)):
            if index % 2:
                parts.append(self.numbers[piece])
            elif text := shield.uncover(piece):
                parts.append(text)
        return parts


class _Shield:
    """
    Makes texts that cannot be, or become a part of, a control token; for one prompt.

    A sentinel that occurs nowhere in the messages breaks each control token in a
    text, and each start or end of one at the text's edges, where a template could
    complete it. Edges are also looked for inside white space, which templates trim.
    """

    def __init__(self, guard: _Guard, unused: Iterator[str]) -> None:
        self.guard = guard
        self.sentinel = next(unused)
        # One character cannot be broken, so it is replaced.
        self.stand_ins = {ord(single): next(unused) for single in guard.singles}
        self.originals = {ord(new): chr(old) for old, new in self.stand_ins.items()}
        escaped = json.dumps(self.sentinel)[1:-1]
        self.sentinels = re.compile(f"{self.sentinel}|{re.escape(escaped)}")

    def cover(self, text: str) -> str:
        return self._broken(text, self._breaks(text))

    def needs_care(self, text: str) -> bool:
        """Whether a template that removes characters could make a control token."""
        return self.guard.edge.search(text) is not None

    def cover_carefully(self, text: str) -> str:
        """
        Break at each character that starts or ends a control token.

        Then no removal of other characters makes one. It is used only where it makes
        a difference, since it also hides such text from a template that looks for it.
        """
        edges = {match.start() for match in self.guard.edge.finditer(text)}
        return self._broken(text, self._breaks(text) | edges)

    def _breaks(self, text: str) -> set[int]:
        breaks = {match.start() + 1 for match in self.guard.start.finditer(text)}
        core = text.strip()
        left, right = len(text) - len(text.lstrip()), len(text.rstrip())
        for edge, piece in ((0, text), (left, core)):
            breaks.update(self._ends_of_tokens(text, edge))
            if piece and any(piece in token for token in self.guard.numbers):
                breaks.add(edge)
        for edge in (right, len(text)):
            breaks.update(self._starts_of_tokens(text, edge))
        return breaks

    def _broken(self, text: str, breaks: set[int]) -> str:
        edges = [0, *sorted(breaks), len(text)]
        pieces = (text[start:end] for start, end in itertools.pairwise(edges))
        return self.sentinel.join(pieces).translate(self.stand_ins)

    def uncover(self, text: str) -> str:
        return self.sentinels.sub("", text).translate(self.originals)

    def _ends_of_tokens(self, text: str, edge: int) -> Iterator[int]:
        for length in range(1, self.guard.longest):
            if text[edge : edge + length] in self.guard.suffixes:
                yield edge + length - 1

    def _starts_of_tokens(self, text: str, edge: int) -> Iterator[int]:
        for length in range(1, min(self.guard.longest, edge + 1)):
            if text[edge - length : edge] in self.guard.prefixes:
                yield edge - length + 1


def _unused(text: str) -> Iterator[str]:
    """Characters without case or meaning that do not occur in the text."""
    taken = set(text)
    for number in itertools.chain(*_PRIVATE_USE):
        if chr(number) not in taken and json.dumps(chr(number))[1:-1] not in text:
            yield chr(number)
    raise ChatTemplateError("the messages use every private-use character of Unicode")


# -- the template engine, imported when first needed ---------------------------------


def _compiled(source: str, clock: Callable[[], datetime.datetime]) -> Template:
    from jinja2 import TemplateSyntaxError

    from llmcore.template_sandbox import compile_template

    try:
        return compile_template(source, clock)
    except TemplateSyntaxError as error:
        raise ChatTemplateError(
            f"the chat template has a syntax error in line {error.lineno}: "
            f"{_brief(error)}"
        ) from error
    except Exception as error:
        raise ChatTemplateError(
            f"the chat template cannot be used: {_brief(error)}"
        ) from error


def _rendered(template: Template, values: Mapping[str, Any], shield: _Shield) -> str:
    from llmcore.template_sandbox import Refusal, run_template

    try:
        return run_template(template, values)
    except Refusal as error:
        raise ChatTemplateError(
            f"the chat template refused the messages: {shield.uncover(str(error))}"
        ) from error
    except Exception as error:
        raise ChatTemplateError(
            f"the chat template failed: {shield.uncover(_brief(error))}"
        ) from error


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:500]
