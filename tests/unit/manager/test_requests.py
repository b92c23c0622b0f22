"""Requests: what they get, what they share, and what they leave behind."""

from __future__ import annotations

import gc

import anyio
import pytest

from llmcore.errors import (
    CapabilityError,
    ChatTemplateError,
    ContextOverflowError,
    NotLoadedError,
    OperationCancelledError,
    OperationTimeoutError,
    QueueFullError,
)
from llmcore.manager import DEFAULT

ANSWER = {"answer": "yes, of course"}


class TestAnswers:
    def test_all_ways_give_the_same_answer(self, house):
        """`generate`, `stream`, `chat` and their asynchronous twins agree."""
        house = house()
        house.load("m", script=ANSWER, default=True)
        manager = house.manager
        said = [("user", "will you?")]
        assert manager.generate("m", "will you?") == ANSWER["answer"]
        assert manager.stream(DEFAULT, "will you?").result.text == ANSWER["answer"]
        assert manager.chat("m", said) == ANSWER["answer"]
        assert manager.stream_chat("m", said).result.text == ANSWER["answer"]

        async def main() -> list[str]:
            stream = await manager.astream("m", "will you?")
            chat = await manager.astream_chat("m", said)
            return [
                await manager.agenerate("m", "will you?"),
                await manager.achat("m", said),
                "".join([event.text async for event in stream]),
                "".join([event.text async for event in chat]),
            ]

        assert anyio.run(main) == [ANSWER["answer"]] * 4

    def test_a_direct_model_answers_too(self, house):
        """In direct mode each request has a context of its own, freed at its end."""
        house = house()
        house.load("m", script=ANSWER, mode="direct")
        assert house.manager.generate("m", "will you?") == ANSWER["answer"]
        assert house.manager.chat("m", [("user", "well?")]) == ANSWER["answer"]
        house.manager.unload("m")
        assert house.backends[0].ledger.live == {}

    def test_embeddings(self, house):
        """`embed` gives as many numbers as the model says, the same every time."""
        house = house()
        house.load("v", capabilities="embed")
        vector = house.manager.embed("v", "a text")
        assert len(vector) == house.manager.fetch_model("v").info.embedding_size
        assert anyio.run(house.manager.aembed, "v", "a text") == vector

    def test_what_a_model_is_not_for_is_refused(self, house):
        """A capability that the model was not loaded with is a `CapabilityError`."""
        house = house()
        house.load("v", capabilities=["embed"])
        house.load("g", capabilities=["generate"])
        with pytest.raises(CapabilityError, match="to embed, not to chat"):
            house.manager.chat("v", [("user", "hi")])
        with pytest.raises(CapabilityError, match=r"capabilities=\['embed'\]"):
            house.manager.embed("g", "hi")
        assert not house.manager.info("v")["active_requests"]

    def test_a_stream_is_refused_when_it_is_asked_for(self, house):
        """`stream` of an unknown model raises at the call, a `ValueError` too."""
        manager = house().manager
        with pytest.raises(NotLoadedError):
            manager.stream("m", "hi")
        with pytest.raises(ValueError, match="no model 'm'"):
            manager.stream("m", "hi")

    def test_a_model_without_a_template_says_so(self, house, monkeypatch):
        """A chat with a model that has no template raises `ChatTemplateError`."""
        monkeypatch.setattr("llmcore.backends.null.vocabulary.CHAT_TEMPLATE", None)
        house = house()
        house.load("m", script=ANSWER)
        assert house.manager.generate("m", "hi") == ANSWER["answer"]
        with pytest.raises(ChatTemplateError):
            house.manager.chat("m", [("user", "hi")])


class TestSharing:
    def test_a_prompt_that_comes_again_is_in_the_cache(self, house):
        """A second request with the same start evaluates only what is new."""
        house = house()
        house.load("m", sequences=2)
        prompt = "a long prompt that many share, with a question"
        house.manager.generate("m", prompt, max_tokens=2)
        result = house.manager.stream("m", prompt + "!", max_tokens=2).result
        assert result.cache.reused >= len(prompt) - 2

    def test_another_prompt_takes_another_sequence(self, house):
        """A different prompt leaves what is cached alone while a sequence is free."""
        house = house()
        house.load("m", sequences=2)
        first, second = "the first of two prompts", "something else entirely"
        for prompt in (first, second):
            house.manager.generate("m", prompt, max_tokens=2)
        for prompt in (first, second):
            result = house.manager.stream("m", prompt, max_tokens=2).result
            assert result.cache.evaluated == 1

    def test_a_conversation_goes_on_in_its_cache(self, house):
        """The next turn of a conversation evaluates only what was added."""
        house = house()
        house.load("m", script=ANSWER, context_size=256)
        talk = [("user", "will you come to the party on sunday?")]
        talk.append(("assistant", house.manager.chat("m", talk)))
        talk.append(("user", "and?"))
        result = house.manager.stream_chat("m", talk).result
        assert result.cache.evaluated < result.prompt_tokens / 2

    def test_requests_run_beside_each_other(self, house):
        """As many streams as there are sequences run at once."""
        house = house()
        house.load("m", sequences=3)
        streams = [house.manager.stream("m", f"{n} is a prompt") for n in range(3)]
        assert house.manager.info("m")["free_sequences"] == 0
        assert house.manager.info("m")["active_requests"] == 3
        for stream in streams:
            next(stream)
            stream.close()
        assert house.manager.info("m")["free_sequences"] == 3


class TestQueue:
    def test_a_request_waits_for_a_sequence(self, house):
        """With all sequences taken the next request waits, and gets the first free."""
        house = house()
        house.load("m", sequences=1, script=ANSWER)
        stream = house.manager.stream("m", "first")
        waiting = house.thread(lambda: house.manager.generate("m", "second"))
        assert stream.result.text == waiting.join() == ANSWER["answer"]

    def test_waiting_is_bounded_in_time(self, house):
        """A request that gets no sequence in time raises `OperationTimeoutError`."""
        house = house()
        house.load("m", sequences=1, request_timeout=0.01)
        with house.manager.stream("m", "first"):
            with pytest.raises(OperationTimeoutError, match=r"0\.01 s"):
                house.manager.generate("m", "second")
            with pytest.raises(OperationTimeoutError, match="0 s"):
                house.manager.generate("m", "second", queue=0)
        assert house.manager.info("m")["active_requests"] == 0

    def test_waiting_is_bounded_in_number(self, house):
        """With ``max_queue`` waiting, one more is refused at once."""
        house = house()
        house.load("m", sequences=1, max_queue=0)
        with (
            house.manager.stream("m", "first"),
            pytest.raises(QueueFullError, match="max_queue"),
        ):
            house.manager.generate("m", "second")

    def test_a_cancelled_task_leaves_the_queue(self, house):
        """A task that is cancelled while it waits does not wait for its turn."""
        house = house()
        house.load("m", sequences=1, script=ANSWER)
        stream = house.manager.stream("m", "first")

        async def main() -> None:
            with anyio.move_on_after(0.05):
                await house.manager.agenerate("m", "second")

        anyio.run(main)
        assert stream.result.text == ANSWER["answer"]
        assert house.manager.generate("m", "third") == ANSWER["answer"]


class TestEnds:
    @pytest.mark.parametrize("end", ["close", "cancel", "drop"])
    def test_a_stream_that_ends_early_gives_all_back(self, house, end):
        """However a stream ends, its sequence and its hold on the model are free."""
        house = house()
        house.load("m", sequences=1)
        stream = house.manager.stream("m", "a prompt")
        next(stream)
        if end == "close":
            stream.close()
        elif end == "cancel":
            stream.cancel()
            with pytest.raises(OperationCancelledError):
                stream.result  # noqa: B018
        else:
            del stream
            gc.collect()
        info = house.manager.info("m")
        assert (info["active_requests"], info["free_sequences"]) == (0, 1)
        assert house.manager.fetch_model("m")._node.holds == 0

    def test_a_request_that_is_refused_gives_all_back(self, house):
        """So does one whose prompt or options are wrong."""
        house = house()
        house.load("m", sequences=1, context_size=16)
        with pytest.raises(ContextOverflowError):
            house.manager.generate("m", "far too long a prompt " * 20)
        with pytest.raises(TypeError, match="no option 'colour'"):
            house.manager.generate("m", "hi", colour="red")
        info = house.manager.info("m")
        assert (info["active_requests"], info["free_sequences"]) == (0, 1)

    def test_a_failed_answer_gives_all_back(self, house):
        """So does one that fails in the engine."""
        house = house()
        house.load("m", sequences=1)
        house.scripts["m"].fail("decode", times=None)
        with pytest.raises(Exception, match="scripted"):
            house.manager.generate("m", "hi")
        info = house.manager.info("m")
        assert (info["active_requests"], info["free_sequences"]) == (0, 1)
