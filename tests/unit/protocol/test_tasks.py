"""A stream read by a task, of asyncio and of trio."""

from __future__ import annotations

import anyio
import pytest

import llmcore
from llmcore.errors import BusyError, DisposedError, OperationCancelledError
from llmcore.values import CacheKind

from .conftest import WAIT
from .kit import fresh_answer, sequences, truthful

pytestmark = pytest.mark.parametrize("loop", ["asyncio", "trio"])


async def until(true):
    with anyio.fail_after(WAIT):
        while not true():
            await anyio.lowlevel.checkpoint()


class TestEvents:
    @pytest.mark.parametrize("answer", [None, "né à Paris ☃."])
    def test_the_same_as_for_a_thread(self, stage, loop, answer):
        """A task reads the very events that a thread reads."""
        stage = stage(answer=answer)
        options = {"max_tokens": 20, "logprobs": 2}
        told = list(stage.sequence().generate([65], **options))

        async def read():
            stream = stage.sequence().generate([65], **options)
            return [event async for event in stream], stream.result

        events, result = anyio.run(read, backend=loop)
        assert told == events
        assert "".join(event.text for event in events) == result.text

    def test_many_tasks(self, stage, loop):
        """Eight tasks each get what each would have got alone."""
        stage = stage()
        made = sequences(stage, 8)
        prompts = [stage.tokens(f"task {n}") for n in range(8)]
        answers = {}

        async def read(n):
            stream = made[n].generate(prompts[n], max_tokens=30)
            async for _ in stream:
                pass
            answers[n] = stream.result.tokens

        async def main():
            async with anyio.create_task_group() as tasks:
                for n in range(8):
                    tasks.start_soon(read, n)

        anyio.run(main, backend=loop)
        for n, prompt in enumerate(prompts):
            assert fresh_answer(stage, prompt, 30) == answers[n]

    def test_begun_in_a_task_and_ended_in_a_thread(self, stage, loop):
        """A stream belongs to no task: what a task left a thread reads on."""
        stage = stage()
        stream = stage.sequence().generate([65], max_tokens=30)

        async def begin():
            return [await stream.__anext__() for _ in range(5)]

        events = anyio.run(begin, backend=loop) + list(stream)
        assert stream.result.text == "".join(event.text for event in events)


class TestEnding:
    @pytest.mark.parametrize("kind", [CacheKind.FULL, CacheKind.RECURRENT])
    def test_a_cancelled_task(self, stage, loop, kind):
        """A task that is cancelled inside of a step frees the sequence at once."""
        stage = stage(cache_kind=kind)
        sequence = stage.sequence()

        async def main():
            stream = sequence.generate(stage.tokens("first"))
            async with anyio.create_task_group() as tasks:

                async def read():
                    async for _ in stream:
                        pass

                tasks.start_soon(read)
                await until(lambda: gate.waiting)
                tasks.cancel_scope.cancel()
            await until(lambda: not sequence._slot.busy)

        with stage.script.gate("decode", nth=4) as gate:
            anyio.run(main, backend=loop)
        assert truthful(sequence)
        prompt = stage.tokens("second")
        answer = sequence.generate(prompt, max_tokens=8).result.tokens
        assert fresh_answer(stage, prompt) == answer

    def test_a_timeout_of_the_task(self, stage, loop):
        """A timeout around the reading ends it although the step goes on."""
        stage = stage()
        sequence = stage.sequence()

        async def main():
            async with sequence.generate([65]) as stream:
                with anyio.move_on_after(0.02) as scope:
                    async for _ in stream:
                        pass
            return scope.cancelled_caught

        with stage.script.gate("decode"):
            assert anyio.run(main, backend=loop)
            assert not sequence._slot.busy
        sequence.evaluate([1])

    def test_break_in_an_async_with(self, stage, loop):
        """Leaving the block of a stream frees its sequence."""
        sequence = stage().sequence()

        async def main():
            async with sequence.generate([65]) as stream:
                async for _ in stream:
                    break
            sequence.evaluate([1])

        anyio.run(main, backend=loop)

    def test_stop(self, stage, loop):
        """A task can stop what another reads, which gets what there is."""
        stream = stage().sequence().generate([65], max_tokens=100)

        async def main():
            async for _ in stream:
                stream.stop()

        anyio.run(main, backend=loop)
        assert "stopped" == stream.result.finish_reason

    @pytest.mark.parametrize("end", ["close", "cancel"])
    def test_ended_while_another_task_reads(self, stage, loop, end):
        """Ended by another task, the reader gets one error, and all is free."""
        stage = stage()
        sequence = stage.sequence()
        stream = sequence.generate([65])
        caught = []

        async def read():
            try:
                async for _ in stream:
                    pass
            except OperationCancelledError as error:
                caught.append(error)

        async def main():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await until(lambda: gate.waiting and stream._turn.locked())
                await anyio.to_thread.run_sync(getattr(stream, end))

        with stage.script.gate("decode", nth=3) as gate:
            anyio.run(main, backend=loop)
        assert 1 == len(caught)
        sequence.evaluate([1])

    def test_disposal(self, stage, loop):
        """A context that goes while a task reads gives it one DisposedError."""
        stage = stage()
        sequence = stage.sequence()
        stream = sequence.generate([65])

        async def read():
            with pytest.raises(DisposedError):
                async for _ in stream:
                    pass

        async def main():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await until(lambda: gate.waiting)
                await sequence.context.adispose()

        with stage.script.gate("decode", nth=3) as gate:
            anyio.run(main, backend=loop)

    def test_a_second_reader(self, stage, loop):
        """Of two tasks that read one stream the second is refused."""
        stage = stage()

        async def read():
            async for _ in stream:
                pass

        async def main():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await until(lambda: gate.waiting and stream._turn.locked())
                with pytest.raises(BusyError):
                    await stream.__anext__()
                gate.open()

        with stage.script.gate("decode", nth=2) as gate:
            stream = stage.sequence().generate([65], max_tokens=3)
            anyio.run(main, backend=loop)
        assert 3 == len(stream.result.tokens)


class TestChat:
    def test_turns_of_tasks_wait_for_each_other(self, stage, loop):
        """Tasks that talk on one session at once all become history."""
        stage = stage(answer="Paris.")
        chat = stage.keep(llmcore.ChatSession(stage.sequence(context_size=512)))

        async def main():
            async with anyio.create_task_group() as tasks:
                for n in range(4):
                    tasks.start_soon(lambda n=n: chat.aprompt(f"{n}?", wait=True))

        anyio.run(main, backend=loop)
        assert ["user", "assistant"] * 4 == [m.role for m in chat.history]

    def test_a_cancelled_turn(self, stage, loop):
        """A turn whose task is cancelled leaves no trace."""
        stage = stage(answer="Paris.")
        chat = stage.keep(llmcore.ChatSession(stage.sequence(context_size=512)))

        async def main():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: chat.aprompt("one"))
                await until(lambda: gate.waiting)
                tasks.cancel_scope.cancel()

        with stage.script.gate("decode") as gate:
            anyio.run(main, backend=loop)
        assert [] == chat.history
        assert "Paris." == chat.prompt("two", wait=True)


class TestTwins:
    def test_by_hand(self, stage, loop, tmp_path):
        """Every blocking method has a twin that does the same beside the event loop."""
        stage = stage()

        async def main():
            context = await stage.model.acreate_context(context_size=64, sequences=2)
            async with context, await context.aget_sequence() as sequence:
                await sequence.aevaluate([65, 66, 67])
                async with await sequence.afork() as twin:
                    assert [65, 66, 67] == twin.tokens
                await sequence.asave(tmp_path / "state")
                assert 1 == await sequence.atruncate(1)
                await sequence.aload(tmp_path / "state")
                assert [65, 66, 67] == sequence.tokens
                await sequence.aclear()
                await context.aclear()
                assert 0 == sequence.position

        anyio.run(main, backend=loop)
