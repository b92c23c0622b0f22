"""Conversations: the second part of generation.md."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest

from llmcore import ChatSession, Sequence
from llmcore.errors import DecodeError, OperationCancelledError
from llmcore_conformance import clause
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import CHAT_TEMPLATE, endless


@pytest.fixture
def chat(sequence: Sequence) -> ChatSession:
    """A conversation with the model's own template, if it has one."""
    return converse(sequence)


def converse(sequence: Sequence) -> ChatSession:
    own = sequence.context.model.info.chat_template
    return ChatSession(sequence, chat_template=None if own else CHAT_TEMPLATE)


@clause("chat.commit")
def test_a_finished_turn_is_history(chat: ChatSession) -> None:
    """Two turns are four messages, with the texts that were said."""
    params = endless(chat.sequence.context.model)
    said = []
    for text in ("Hello <there>", "And?\n"):
        said += [("user", text), ("assistant", chat.prompt(text, params, max_tokens=6))]
    roles = [message for message in chat.history if message.role != "system"]
    assert [tuple(message) for message in roles] == said


@clause("chat.rollback")
@pytest.mark.parametrize("how", ["fails", "is cancelled", "is dropped"])
def test_a_turn_that_does_not_end_leaves_no_trace(
    chat: ChatSession, ledger: SeamLedger, how: str
) -> None:
    """The history is what it was before the turn."""
    params = endless(chat.sequence.context.model)
    chat.prompt("Hello", params, max_tokens=4)
    before = chat.history
    stream = chat.stream("And now?", params, max_tokens=64)
    next(stream)
    if how == "fails":
        ledger.fail("decode", DecodeError)
        with pytest.raises(DecodeError):
            list(stream)
    elif how == "is cancelled":
        stream.cancel()
        with suppress(OperationCancelledError):
            list(stream)
    else:
        del stream
    assert chat.history == before


@clause("chat.plain-text")
def test_text_cannot_become_a_control_token(sequence: Sequence) -> None:
    """Text that spells control tokens adds none to the prompt."""
    info = sequence.context.model.info
    spelled = " ".join(list(info.special_tokens)[:8])
    params = endless(sequence.context.model)

    def controls(text: str) -> Counter[int]:
        sequence.clear()
        stream = converse(sequence).stream(text, params, max_tokens=1)
        length = stream.result.prompt_tokens
        prompt = sequence.tokens[:length]
        return Counter(t for t in prompt if t in info.special_tokens.values())

    assert controls(spelled) == controls("plain"), f"said: {spelled!r}"


@clause("chat.reuse")
def test_the_second_turn_reuses_the_first(chat: ChatSession) -> None:
    """Of the second prompt, at least all of the first is not evaluated again."""
    params = endless(chat.sequence.context.model)
    first = chat.stream("Hello", params, max_tokens=6).result
    chat.prompt("And now?", params, max_tokens=6)
    report = chat.cache_report
    assert report is not None
    assert report.reused >= first.prompt_tokens, report.reason
