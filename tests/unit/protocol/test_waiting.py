"""Standing in line: for a sequence that has a user, and for one that is free."""

from __future__ import annotations

import anyio
import pytest

import llmcore
from llmcore.errors import (
    DisposedError,
    OperationCancelledError,
    OperationTimeoutError,
    QueueFullError,
    SequenceBusyError,
)
from llmcore.values import Capability

from .kit import fresh_answer, until

LOOPS = ["asyncio", "trio"]


def first_tokens(stage):
    return [
        batch.tokens[0] for batch in stage.ledger.batches if batch.positions[0] == 0
    ]


class TestLine:
    def test_in_order(self, stage):
        """Who waits for a sequence is served in the order of asking."""
        stage = stage()
        sequence = stage.sequence()
        streams = [
            sequence.generate([n] * 3, max_tokens=2, wait=True) for n in (65, 66, 67)
        ]
        for stream in streams:
            assert 2 == len(stream.result.tokens)
        assert [65, 66, 67] == first_tokens(stage)

    def test_each_answer_is_a_fresh_ones(self, stage, worker):
        """Threads that wait for one sequence each get the answer to their prompt."""
        stage = stage()
        sequence = stage.sequence()
        prompts = [stage.tokens(f"say {n}") for n in range(6)]
        hands = [
            worker(lambda p=p: sequence.generate(p, max_tokens=8, wait=True).result)
            for p in prompts
        ]
        for hand, prompt in zip(hands, prompts, strict=True):
            assert fresh_answer(stage, prompt) == hand.join().tokens

    def test_who_does_not_wait_does_not_jump_in(self, stage):
        """While others stand in line, who will not wait is refused."""
        sequence = stage().sequence()
        first = sequence.generate([65], max_tokens=2)
        second = sequence.generate([66], max_tokens=2, wait=True)
        first.close()
        with pytest.raises(SequenceBusyError):
            sequence.generate([67])
        assert 2 == len(second.result.tokens)
        sequence.evaluate([68])

    @pytest.mark.parametrize("most", [0, 1, 2])
    def test_the_line_is_bounded(self, stage, most):
        """One more than may wait gets QueueFullError, and then all can leave."""
        sequence = stage().sequence(max_waiting=most)
        streams = [
            sequence.generate([65], max_tokens=2, wait=True) for _ in range(most + 1)
        ]
        with pytest.raises(QueueFullError, match=f"{most} requests wait"):
            sequence.generate([66], wait=True)
        for stream in streams:
            stream.close()
        sequence.generate([67], max_tokens=1, wait=True).close()

    @pytest.mark.parametrize("how", ["cancel", "close", "drop"])
    def test_a_waiter_can_leave(self, stage, how):
        """Cancelled, closed or dropped in line: the next one moves up."""
        sequence = stage().sequence(max_waiting=1)
        running = sequence.generate([65], max_tokens=2)
        waiter = sequence.generate([66], wait=True)
        if how == "cancel":
            waiter.cancel()
            with pytest.raises(OperationCancelledError):
                next(waiter)
        elif how == "close":
            waiter.close()
        del waiter
        other = sequence.generate([67], max_tokens=3, wait=True)
        assert 2 == len(running.result.tokens)
        assert 3 == len(other.result.tokens)

    def test_disposal_sends_the_line_home(self, stage, worker):
        """Who waits for a sequence that is disposed gets one DisposedError."""
        sequence = stage().sequence()
        running = sequence.generate([65])
        waiter = sequence.generate([66], wait=True)
        reader = worker(lambda: list(waiter))
        sequence.dispose()
        reader.join()
        assert isinstance(reader.error, DisposedError)
        with pytest.raises(DisposedError):
            list(running)


class TestTimeout:
    def test_in_line(self, stage):
        """Waiting too long ends the wait; who runs, and who comes next, is unharmed."""
        stage = stage()
        sequence = stage.sequence()
        prompt = stage.tokens("run")
        running = sequence.generate(prompt, max_tokens=8)
        with pytest.raises(OperationTimeoutError, match=r"was not over after 0.01 s"):
            list(sequence.generate([66], wait=True, timeout=0.01))
        other = sequence.generate([67], max_tokens=1, wait=True)
        assert fresh_answer(stage, prompt) == running.result.tokens
        assert 1 == len(other.result.tokens)

    def test_at_once(self, stage):
        """No time at all is a timeout before anything is evaluated."""
        stage = stage()
        sequence = stage.sequence()
        with pytest.raises(OperationTimeoutError):
            list(sequence.generate([65], timeout=0))
        assert 0 == stage.decodes()
        sequence.evaluate([1])

    def test_inside_a_step(self, stage):
        """Where the engine can abort, a step that takes too long is ended."""
        stage = stage()
        sequence = stage.sequence()
        with stage.script.gate("decode"):
            stream = sequence.generate([65], timeout=0.05)
            with pytest.raises(OperationTimeoutError):
                list(stream)
        prompt = stage.tokens("again")
        answer = sequence.generate(prompt, max_tokens=8).result.tokens
        assert fresh_answer(stage, prompt) == answer

    def test_where_the_engine_cannot_abort(self, stage, worker):
        """Without abort the step ends first, then the timeout is told."""
        stage = stage(capabilities=frozenset(Capability) - {Capability.ABORT})
        sequence = stage.sequence()
        with stage.script.gate("decode") as gate:
            stream = sequence.generate([65], timeout=0.01)
            reader = worker(lambda: list(stream))
            gate.wait_entered()
        reader.join()
        assert isinstance(reader.error, OperationTimeoutError)
        sequence.evaluate([1])

    @pytest.mark.parametrize("loop", LOOPS)
    def test_of_a_task(self, stage, loop):
        """A task that reads gets the timeout inside of a step, too."""
        stage = stage()
        sequence = stage.sequence()

        async def read():
            async for _ in sequence.generate([65], timeout=0.05):
                pass

        with stage.script.gate("decode"), pytest.raises(OperationTimeoutError):
            anyio.run(read, backend=loop)
        sequence.evaluate([1])

    def test_an_unread_stream(self, stage):
        """A stream that nobody reads loses its sequence when its time is over."""
        sequence = stage().sequence()
        stream = sequence.generate([65], timeout=0.05)
        until(lambda: not sequence._slot.busy)
        sequence.evaluate([1])
        with pytest.raises(OperationTimeoutError):
            list(stream)


class TestFreeSequence:
    def test_the_next_one_that_is_free(self, stage, worker):
        """A waiter gets the sequence that another gives back, and it is empty."""
        stage = stage()
        first = stage.sequence()
        context = first.context
        first.evaluate([1, 2, 3])
        waiter = worker(lambda: context.get_sequence(wait=True))
        until(lambda: context._engine.slots.waiting)
        first.dispose()
        with waiter.join() as heir:
            assert [] == heir.tokens

    def test_a_timeout(self, stage):
        """If none comes free in time, that is said, and nothing is taken."""
        context = stage().sequence().context
        with pytest.raises(OperationTimeoutError, match="all 1 sequences"):
            context.get_sequence(wait=True, timeout=0.01)
        assert 0 == context._engine.slots.waiting

    def test_the_line_is_bounded(self, stage, worker):
        """One more than may wait gets QueueFullError."""
        first = stage().sequence(max_waiting=1)
        context = first.context
        waiter = worker(lambda: context.get_sequence(wait=True))
        until(lambda: context._engine.slots.waiting)
        with pytest.raises(QueueFullError, match="1 others wait"):
            context.get_sequence(wait=True)
        first.dispose()
        waiter.join().dispose()

    def test_disposal_of_the_context(self, stage, worker):
        """Who waits for a sequence of a context that goes gets a DisposedError."""
        context = stage().sequence().context
        waiter = worker(lambda: context.get_sequence(wait=True))
        until(lambda: context._engine.slots.waiting)
        context.dispose()
        waiter.join()
        assert isinstance(waiter.error, DisposedError)

    @pytest.mark.parametrize("loop", LOOPS)
    def test_a_task(self, stage, loop):
        """A task waits for a sequence without blocking its event loop."""
        first = stage().sequence()
        context = first.context

        async def main():
            async with anyio.create_task_group() as tasks:

                async def take():
                    async with await context.aget_sequence(wait=True) as heir:
                        assert [] == heir.tokens

                tasks.start_soon(take)
                while not context._engine.slots.waiting:
                    await anyio.lowlevel.checkpoint()
                await first.adispose()

        anyio.run(main, backend=loop)
        assert 1 == context.sequences_left

    @pytest.mark.parametrize("loop", LOOPS)
    def test_a_cancelled_task(self, stage, loop):
        """A task that is cancelled while it waits takes no sequence for ever."""
        first = stage().sequence()
        context = first.context

        async def main():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: context.aget_sequence(wait=True))
                while not context._engine.slots.waiting:
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()

        anyio.run(main, backend=loop)
        first.dispose()
        until(lambda: not context._engine.slots.waiting)
        until(lambda: 1 == context.sequences_left)


class TestChats:
    def test_a_turn_that_waits_sees_the_one_before(self, stage):
        """A turn in line behind another of its session goes on from its answer."""
        stage = stage(answer="Paris.")
        chat = stage.keep(llmcore.ChatSession(stage.sequence(context_size=512)))
        one = chat.stream("one", wait=True)
        two = chat.stream("two", wait=True)
        assert "Paris." == one.result.text
        assert "Paris." == two.result.text
        said = [(message.role, message.content) for message in chat.history]
        assert [
            ("user", "one"),
            ("assistant", "Paris."),
            ("user", "two"),
            ("assistant", "Paris."),
        ] == said
        assert chat.cache_report.reason == "everything cached was kept"

    def test_turns_from_threads(self, stage, worker):
        """Turns from several threads all become history, whole and one by one."""
        stage = stage(answer="Paris.")
        chat = stage.keep(llmcore.ChatSession(stage.sequence(context_size=1024)))
        hands = [worker(lambda n=n: chat.prompt(f"{n}?", wait=True)) for n in range(5)]
        assert ["Paris."] * 5 == [hand.join() for hand in hands]
        roles = [message.role for message in chat.history]
        assert ["user", "assistant"] * 5 == roles
        asked = {m.content for m in chat.history if m.role == "user"}
        assert {f"{n}?" for n in range(5)} == asked
