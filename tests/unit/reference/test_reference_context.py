"""Contexts at the seam: batches, caches, what ends early, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmcore.backends.reference.model import ReferenceModel
from llmcore.backends.reference.network import Block, Step
from llmcore.errors import CapabilityError, DecodeAbortedError, DecodeError
from llmcore.spi import Batch
from llmcore.values import Capability

from .kit import TEXT, feed, opened, same

KINDS = ["llama", "mamba"]


@pytest.fixture(name="model", params=KINDS)
def _model(
    request: pytest.FixtureRequest, models: dict[str, ReferenceModel]
) -> ReferenceModel:
    return models[request.param]


class During(Block):
    """A layer that does something first; put in the place of another."""

    def __init__(self, block: Any, action: Any) -> None:
        self.block, self.action = block, action

    def __call__(self, x: Any, step: Step, layer: int) -> Any:
        self.action()
        return self.block(x, step, layer)


@pytest.fixture(name="during")
def _during(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``during(model, action)`` acts in the first layer of each step."""

    def put(model: ReferenceModel, action: Any) -> None:
        network: Any = model._network
        blocks = [During(network.blocks[0], action), *network.blocks[1:]]
        monkeypatch.setattr(network, "blocks", blocks)

    return put


# -- batches -------------------------------------------------------------------------


def test_neighbours(model: ReferenceModel) -> None:
    """Sequences that are mixed in a batch get the logits that each has alone."""
    with opened(model, sequences=3) as context:
        feed(context, TEXT[:4], 2)
        context.decode(
            Batch(
                [*TEXT[:3], TEXT[9], TEXT[4], TEXT[10]],
                [0, 1, 2, 0, 4, 1],
                [1, 1, 1, 0, 2, 0],
                [False, False, True, False, True, True],
            )
        )
        rows = [context.logits(row).copy() for row in (2, 4, 5)]
    for found, text in zip(rows, (TEXT[:3], TEXT[:5], TEXT[9:11]), strict=True):
        with opened(model) as context:
            same(found, feed(context, text))


def test_micro_batches(model: ReferenceModel) -> None:
    """However few rows are computed at once, the logits are the same."""
    with opened(model) as context:
        whole = feed(context, TEXT)
    with opened(model, micro_batch_size=5) as context:
        same(feed(context, TEXT), whole)


def test_rows_without_output(llama: ReferenceModel) -> None:
    """Only rows that asked for logits have them, and only until the next batch."""
    with opened(llama) as context:
        feed(context, TEXT[:3])
        for row in (-1, 0, 1, 3):
            with pytest.raises(DecodeError, match=f"row {row} of the last batch"):
                context.logits(row)
        context.decode(Batch([5], [3], [0], [False]))
        with pytest.raises(DecodeError, match="has no logits"):
            context.logits(0)


def test_full(model: ReferenceModel) -> None:
    """What does not fit is refused, and changes nothing."""
    with opened(model, context_size=8) as context:
        feed(context, TEXT[:6])
        with pytest.raises(DecodeError, match=r"3 tokens do not fit .* room for 2"):
            feed(context, TEXT[6:9], at=6)

        assert context.bounds(0)[1] == 5
        again = feed(context, TEXT[6:8], at=6)
    with opened(model) as context:
        same(again, feed(context, TEXT[:8]))


# -- what ends early -----------------------------------------------------------------


def test_abort(model: ReferenceModel, during: Any) -> None:
    """A step that is aborted between two layers leaves its caches as they were."""
    with opened(model, sequences=2) as context:
        feed(context, TEXT[:6])
        before = context.save_state(0)
        during(model, lambda: context.abort(True))
        with pytest.raises(DecodeAbortedError):
            context.decode(Batch(TEXT[6:8], [6, 0], [0, 1], [True, True]))

        assert context.save_state(0) == before
        assert context.bounds(1) == (-1, -1)


def test_go_on(model: ReferenceModel) -> None:
    """While it is to stop nothing is evaluated; then all goes on as if never asked."""
    with opened(model) as context:
        context.abort(True)
        with pytest.raises(DecodeAbortedError):
            feed(context, TEXT)
        context.abort(False)
        found = feed(context, TEXT)
    with opened(model) as context:
        same(found, feed(context, TEXT))


def test_part_of_a_batch(llama: ReferenceModel, during: Any) -> None:
    """Of a batch in several steps, the steps before the aborted one stay."""
    with opened(llama, micro_batch_size=8) as context:
        steps = iter([False, True])
        during(llama, lambda: context.abort(next(steps)))
        with pytest.raises(DecodeAbortedError):
            feed(context, TEXT)

        assert context.bounds(0) == (0, 7)


def test_no_memory(llama: ReferenceModel, during: Any) -> None:
    """A step for which there is no memory says what to make smaller."""

    def fail() -> None:
        raise MemoryError

    during(llama, fail)
    with (
        opened(llama) as context,
        pytest.raises(DecodeError, match="smaller micro_batch_size"),
    ):
        feed(context, TEXT)


# -- the caches ----------------------------------------------------------------------


def test_remove_the_end(llama: ReferenceModel) -> None:
    """After its end is removed, a sequence goes on as if that had never been."""
    with opened(llama) as context:
        feed(context, TEXT[:10])
        assert context.remove(0, 4)
        assert context.bounds(0) == (0, 3)
        found = feed(context, TEXT[12:16], at=4)
    with opened(llama) as context:
        same(found, feed(context, [*TEXT[:4], *TEXT[12:16]]))


def test_remove_from_a_state(models: dict[str, ReferenceModel]) -> None:
    """A recurrent state has no parts: it is not declared, refused, and unchanged."""
    model = models["mamba"]
    declared = model.info.capabilities
    with opened(model) as context:
        feed(context, TEXT[:10])
        before = context.save_state(0)

        assert not {Capability.PARTIAL_REMOVE, Capability.SHIFT} & declared
        assert context.remove(0, 4) is False
        with pytest.raises(CapabilityError, match="cannot shift"):
            context.shift(0, 4, 10, -4)
        assert context.save_state(0) == before


def test_shift(llama: ReferenceModel) -> None:
    """Positions count only relatively: a whole sequence can be anywhere."""
    with opened(llama) as context:
        feed(context, TEXT[:10])
        context.shift(0, 0, 10, 5)
        assert context.bounds(0) == (5, 14)
        found = feed(context, [TEXT[10]], at=15)
    with opened(llama) as context:
        same(found, feed(context, TEXT[:11]))


def test_shift_below_zero(llama: ReferenceModel) -> None:
    """What would get a negative position is forgotten."""
    with opened(llama) as context:
        feed(context, TEXT[:10])
        context.shift(0, 0, 10, -4)

        assert context.bounds(0) == (0, 5)


def test_room_after_removal(llama: ReferenceModel) -> None:
    """The cells of what was removed from the middle are free again."""
    with opened(llama, context_size=8) as context:
        feed(context, TEXT[:8])
        context.remove(0, 2, 6)
        context.shift(0, 6, 8, -4)
        feed(context, TEXT[8:12], at=4)

        assert context.bounds(0) == (0, 7)


def test_copy(model: ReferenceModel) -> None:
    """A copy goes on by itself, and the original without it."""
    with opened(model, sequences=2) as context:
        feed(context, TEXT[:6])
        context.copy(0, 1)
        other = feed(context, TEXT[10:14], 1, at=6)
        first = feed(context, TEXT[6:10], 0, at=6)
    with opened(model) as context:
        same(first, feed(context, TEXT[:10]))
        context.clear(0)
        same(other, feed(context, [*TEXT[:6], *TEXT[10:14]]))


@pytest.mark.parametrize("data", [True, False])
def test_clear(model: ReferenceModel, data: bool) -> None:
    """One sequence is emptied, or all are."""
    with opened(model, sequences=2) as context:
        feed(context, TEXT, 0)
        feed(context, TEXT, 1)
        context.clear(0)
        assert [context.bounds(0), context.bounds(1)[1]] == [(-1, -1), 23]
        context.clear(data=data)
        assert context.bounds(1) == (-1, -1)
        again = feed(context, TEXT, 1)
    with opened(model) as context:
        same(again, feed(context, TEXT))


def test_memory(llama: ReferenceModel) -> None:
    """What is reported are the bytes of the arrays: keys, values, positions, logits."""
    with opened(llama, context_size=32, sequences=3, kv_type_v="f16") as context:
        feed(context, TEXT)
        used = context.memory()
        cells, heads, size = 3 * 32, 2, 4

        assert used.kv_cache == cells * (2 * heads * size * (4 + 2) + 8)
        assert used.compute == np.float32().nbytes * (16 + llama.info.vocab_size) + 16
