"""`Chat`: answers to conversations that somebody else keeps."""

from __future__ import annotations

import anyio
import pytest

import llmcore
from llmcore.errors import ContextOverflowError, SequenceBusyError

SYSTEM = ("system", "Be terse.")


@pytest.fixture(name="chat")
def _chat(stage):
    """A chat over a model that says a fixed answer."""
    made = stage(answer="Paris.")
    return made.keep(llmcore.Chat(made.sequence(context_size=512)))


def test_it_answers_like_a_session(stage, chat):
    """The same conversation gets the same answer and the same prompt as a session's."""
    other = stage(answer="Paris.").sequence(context_size=512)
    session = llmcore.ChatSession(other, system_prompt="Be terse.")
    session.prompt("one")
    wanted = session.stream("two").result
    asked = [*session.history[:3], ("user", "two")]
    assert wanted.text == chat.stream(asked).result.text
    assert wanted.prompt_tokens == chat.stream(asked).result.prompt_tokens
    session.dispose()


def test_it_keeps_nothing(chat):
    """A conversation knows nothing of the one before."""
    first = chat.stream([SYSTEM, ("user", "my secret is 42")]).result
    again = chat.stream([SYSTEM, ("user", "hello")]).result
    assert first.prompt_tokens != again.prompt_tokens
    assert not hasattr(chat, "history")


def test_what_is_common_is_evaluated_once(chat):
    """A conversation that begins like the last one reuses that beginning."""
    chat.prompt([SYSTEM, {"role": "user", "content": "one"}])
    held = chat.sequence.position
    chat.prompt([SYSTEM, ("user", "one"), ("assistant", "Paris."), ("user", "two")])
    assert held == chat.cache_report.matched


def test_messages_may_come_from_a_generator(chat):
    """Any iterable of messages will do, and it is read once."""
    assert "Paris." == chat.prompt(m for m in [SYSTEM, ("user", "one")])


def test_what_does_not_fit_is_refused(chat):
    """An overlong conversation raises and changes nothing."""
    with pytest.raises(ContextOverflowError):
        chat.prompt([("user", "x" * 1000)])
    assert 0 == chat.sequence.position


def test_one_turn_at_a_time(chat):
    """A second turn is refused while one runs, unless it waits."""
    stream = chat.stream([("user", "one")])
    with pytest.raises(SequenceBusyError):
        chat.prompt([("user", "two")])
    waiting = chat.stream([("user", "two")], wait=True)
    assert "Paris." == stream.result.text == waiting.result.text


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_in_tasks(chat, loop):
    """`aprompt` gives the same answer."""

    async def ask():
        return await chat.aprompt([SYSTEM, ("user", "one")])

    assert "Paris." == anyio.run(ask, backend=loop)
