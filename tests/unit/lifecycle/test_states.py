from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcore.lifecycle.states import Event, State, admits, after, dispose_order

LIVE, DISPOSING, DISPOSED, BROKEN, FORKED = State
AFTER = {
    # state:  (DISPOSE, FREED, BREAK, FORK)
    LIVE: (DISPOSING, LIVE, BROKEN, FORKED),
    DISPOSING: (DISPOSING, DISPOSED, DISPOSING, FORKED),
    DISPOSED: (DISPOSED, DISPOSED, DISPOSED, DISPOSED),
    BROKEN: (DISPOSING, BROKEN, BROKEN, FORKED),
    FORKED: (FORKED, FORKED, FORKED, FORKED),
}


class TestAfter:
    @pytest.mark.parametrize("state", State)
    @pytest.mark.parametrize("event", Event)
    def test_table(self, state: State, event: Event) -> None:
        """Every event in every state leads to the state in the table."""
        column = list(Event).index(event)

        assert after(state, event) is AFTER[state][column]

    @given(st.sampled_from(State), st.lists(st.sampled_from(Event)))
    def test_no_way_back(self, state: State, events: list[Event]) -> None:
        """What left a state never comes back to it, whatever happens."""
        seen = [state]
        for event in events:
            state = after(state, event)
            if state is not seen[-1]:
                assert state not in seen
                seen.append(state)


class TestAdmits:
    @pytest.mark.parametrize("state", State)
    @pytest.mark.parametrize("draining", [False, True])
    @pytest.mark.parametrize("running", [False, True])
    def test_table(self, state: State, draining: bool, running: bool) -> None:
        """A live resource admits all, a draining one what runs, any other nothing."""
        drains = state is DISPOSING and draining and running

        expected = state is LIVE or drains

        assert admits(state, draining=draining, running=running) is expected


@dataclass(frozen=True)
class Link:
    number: int


@dataclass(frozen=True)
class Graph:
    parents: list[int | None]  # of node i, always a lower number
    owners: list[int | None]  # of node i, anyone: also its own dependant, also cyclic

    def nodes(self, above: list[int | None], number: int) -> list[Link]:
        return [Link(i) for i, upper in enumerate(above) if upper == number]

    def order(self, root: int) -> list[int]:
        nodes = dispose_order(
            Link(root),
            lambda link: self.nodes(self.parents, link.number),
            lambda link: self.nodes(self.owners, link.number),
        )
        return [node.number for node in nodes]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(1, 10))
    parents: list[int | None] = [None]
    for i in range(1, size):
        parents.append(draw(st.none() | st.integers(0, i - 1)))
    owner = st.none() | st.integers(0, size - 1)
    return Graph(parents, draw(st.lists(owner, min_size=size, max_size=size)))


def expected_closure(graph: Graph, root: int) -> set[int]:
    reached = {root}
    for _ in graph.parents:
        reached |= {i for i, up in enumerate(graph.parents) if up in reached}
        reached |= {i for i, up in enumerate(graph.owners) if up in reached}
    return reached


class TestDisposeOrder:
    many = settings(derandomize=True, deadline=None, max_examples=300)

    @many
    @given(graphs(), st.data())
    def test_closure(self, graph: Graph, data: st.DataObject) -> None:
        """Exactly the dependants and the owned go, transitively, each once."""
        root = data.draw(st.integers(0, len(graph.parents) - 1))

        order = graph.order(root)

        assert sorted(order) == sorted(expected_closure(graph, root))

    @many
    @given(graphs(), st.data())
    def test_dependants_first(self, graph: Graph, data: st.DataObject) -> None:
        """Nothing is freed before all that depends on it."""
        order = graph.order(data.draw(st.integers(0, len(graph.parents) - 1)))

        for place, number in enumerate(order):
            above = graph.parents[number]
            assert above not in order[:place]

    @many
    @given(graphs(), st.data())
    def test_newest_first(self, graph: Graph, data: st.DataObject) -> None:
        """Each is the newest of those that nothing left depends on."""
        order = graph.order(data.draw(st.integers(0, len(graph.parents) - 1)))

        while order:
            needed = {graph.parents[number] for number in order}
            assert order[0] == max(set(order) - needed)
            order.pop(0)
