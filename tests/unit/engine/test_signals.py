"""The line of events between the engine and a reader."""

from __future__ import annotations

from llmcore.engine.signals import Mailbox, Signal


class TestSignal:
    def test_twice_is_once(self) -> None:
        """A signal that was set twice wakes once."""
        signal = Signal()
        signal.set()
        signal.set()
        assert signal.wait(0)
        assert not signal.wait(0)


class TestMailbox:
    def test_in_order(self) -> None:
        """Events come out as they went in, then nothing does."""
        box = Mailbox[int](2, lambda: None)
        for event in (1, 2, 3):  # also beyond its size
            box.put(event)
        assert [box.poll() for _ in range(4)] == [1, 2, 3, None]

    def test_room_is_told_once_and_only_if_missed(self) -> None:
        """The engine is woken when a box that it found full has room again."""
        told: list[str] = []
        box = Mailbox[int](2, lambda: told.append("room"))
        for event in (1, 2, 3):
            box.put(event)
        box.poll()
        assert told == []  # nobody had looked
        assert box.full
        box.poll()
        assert told == ["room"]
        assert not box.full
        box.poll()
        assert told == ["room"]

    def test_a_task_is_notified(self) -> None:
        """Whoever asked to be notified is, of what is new and of the end."""
        told: list[str] = []
        box = Mailbox[int](2, lambda: None)
        box.notify = lambda: told.append("look")
        box.put(1)
        box.put(2)
        box.tell()
        box.tell()  # nothing new
        box.close()
        assert told == ["look", "look"]
        assert box.closed
