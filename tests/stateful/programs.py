"""
Whole programs: all that one thread may do, in any order.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from llmcore.errors import DisposedError, DisposeTimeoutError

from .answers import Answers
from .by_hand import ByHand
from .kit import EFFORT, Bench
from .model import Place, picks


class Programs(ByHand, Answers):
    """Random programs of one thread, against what their author may expect."""

    @rule(at=picks, way=st.sampled_from(["cancel", "wait", "model"]))
    def dispose_above(self, at: int, way: str) -> None:
        """What is above all sequences goes; then there is a new one."""
        place = self.places[at % len(self.places)]
        gone = self.places if way == "model" else [place]
        if way == "model":
            self.model.dispose()
        elif way == "cancel":
            place.context.dispose()
        else:
            self.let_finish(place)
        for one in gone:
            for line in one.lines:
                self.gone(line)
            with pytest.raises(DisposedError):
                one.context.get_sequence(wait=True)
            with pytest.raises(DisposedError):
                one.context.clear()
        if way == "model":
            self.model = self.llama.load_model(self.bench.path)
        self.places = [self.make_place() if p in gone else p for p in self.places]

    def let_finish(self, place: Place) -> None:
        """A disposal that waits lets answers come to their end, and nothing begin."""
        busy = [line for line in place.lines if line.answers]
        if busy:
            with pytest.raises(DisposeTimeoutError):
                place.context.dispose(inflight="wait", timeout=0)
        for line in busy:
            if line.sequence is not None:
                with pytest.raises(DisposedError):
                    line.sequence.evaluate([])
            line.sequence = None
            while line.answers:
                answer = line.answers[0]
                assert answer.stream is not None
                answer.events.extend(answer.stream)
                options = self.right_options(answer.options)
                if not answer.cut:
                    self.bench.check(answer.prompt, options, answer.stream.result)
                self.leave(answer)
        place.context.dispose(inflight="wait")


def run_machine(
    kind: type[Programs], bench: Bench, *, contexts: int, examples: int, steps: int
) -> None:
    """Try so many random programs of so many steps."""
    machine = type(kind.__name__, (kind,), {"bench": bench, "contexts": contexts})
    run_state_machine_as_test(
        machine,
        settings=settings(
            derandomize=True,
            deadline=None,
            max_examples=examples * EFFORT,
            stateful_step_count=steps,
        ),
    )
