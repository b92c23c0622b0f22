"""The ledger sees every broken promise about what a call is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmcore.errors import (
    BackendError,
    CapabilityError,
    ContextCreationError,
    DecodeError,
    StateError,
)
from llmcore.spi import BackendSampler, Batch
from llmcore.testing import NullScript, ViolationKind
from llmcore.values import Capability, ContextParams, SamplingParams

from .conftest import MakeEngine, batch

TEN = list(range(97, 107))
GREEDY = SamplingParams()
TWO = ContextParams(context_size=8, sequences=2)


class TestBatchViolations:
    @pytest.mark.parametrize(
        ("wrong", "kind"),
        [
            (batch(), "empty-batch"),
            (Batch([1, 2], [0], [0], [True]), "unequal-batch"),
            (batch((0, 0, TEN)), "batch-size"),
            (batch((0, 0, [268])), "token-range"),
            (batch((0, 0, [-1])), "token-range"),
            (batch((2, 0, [1])), "sequence-range"),
            (batch((0, 1, [1])), "positions"),
            (Batch([1, 2], [0, 2], [0, 0], [True] * 2), "positions"),
            (Batch([1, 2], [0, 0], [0, 0], [True] * 2), "positions"),
        ],
    )
    def test_refused(self, engine: MakeEngine, wrong: Batch, kind: str) -> None:
        """A malformed batch is recorded and refused as a whole."""
        one = engine(batch_size=8)
        with pytest.raises(DecodeError):
            one.context.decode(wrong)
        assert [kind] == one.violations
        assert one.context.bounds(0) == (-1, -1)

    def test_stale_position(self, engine: MakeEngine) -> None:
        """Positions must follow what the cache holds."""
        one = engine()
        one.feed(TEN)
        with pytest.raises(DecodeError, match="goes on at 10, got position 9"):
            one.feed([1], at=9)
        assert one.violations == ["positions"]

    def test_row_without_output(self, engine: MakeEngine) -> None:
        """Reading a row that has no output is recorded."""
        one = engine()
        one.context.decode(Batch([1, 2], [0, 1], [0, 0], [False, True]))
        with pytest.raises(BackendError, match="row 0"):
            one.context.logits(0)
        assert one.violations == ["row"]

    def test_rows_of_a_failed_batch(self, engine: MakeEngine) -> None:
        """A failed batch has no rows, not even those of the batch before."""
        one = engine()
        one.feed(TEN)
        one.script.fail("decode", applied=1)
        with pytest.raises(DecodeError):
            one.feed([1], at=10)
        with pytest.raises(BackendError):
            one.context.logits(0)
        assert one.violations == ["row"]


class TestOtherViolations:
    def test_foreign_state(self, engine: MakeEngine) -> None:
        """State of another model is recorded and refused."""
        one, other = engine(), engine(NullScript(name="other"))
        with pytest.raises(StateError, match="another model"):
            one.context.load_state(0, other.context.save_state(0))
        assert one.violations == ["foreign"]

    def test_foreign_sampler(self, engine: MakeEngine) -> None:
        """A sampler of another context is recorded."""
        one = engine()
        one.feed(TEN)
        second = one.model.create_context(ContextParams(context_size=8))
        one.context.sample(0, second.create_sampler(GREEDY, 1))
        assert one.violations == ["foreign"]

    def test_strange_sampler(self, engine: MakeEngine) -> None:
        """A sampler of another backend is recorded and refused."""

        class Strange(BackendSampler):
            def accept(self, token: int) -> None: ...

            def close(self) -> None: ...

        one = engine()
        one.feed(TEN)
        with pytest.raises(BackendError, match="another backend"):
            one.context.sample(0, Strange())
        assert one.violations == ["foreign"]

    def test_freed_sampler(self, engine: MakeEngine) -> None:
        """Sampling with a freed sampler is recorded."""
        one = engine()
        one.feed(TEN)
        sampler = one.context.create_sampler(GREEDY, 1)
        sampler.close()
        one.context.sample(0, sampler)
        assert one.violations == ["use-after-free"]

    def test_copy_onto_something(self, engine: MakeEngine) -> None:
        """Copying onto a sequence that is not empty is recorded."""
        one = engine()
        one.feed(TEN)
        one.feed([1], sequence=1)
        one.context.copy(0, 1)
        assert one.violations == ["target-not-empty"]

    def test_sequence_range(self, engine: MakeEngine) -> None:
        """A sequence number that the context does not have is recorded."""
        one = engine()
        with pytest.raises(BackendError, match="below 2"):
            one.context.clear(2)
        assert one.violations == ["sequence-range"]

    def test_token_range_of_a_piece(self, engine: MakeEngine) -> None:
        """A token number that the vocabulary does not have is recorded."""
        one = engine()
        assert one.model.piece(268) == b""
        assert one.violations == ["token-range"]

    @pytest.mark.parametrize(
        ("capability", "call"),
        [
            (Capability.LOGITS, lambda c: c.logits(0)),
            (Capability.NATIVE_SAMPLING, lambda c: c.create_sampler(GREEDY, 1)),
            (Capability.NATIVE_SAMPLING, lambda c: c.sample(0, None)),
            (Capability.PARTIAL_REMOVE, lambda c: c.remove(0, 0)),
            (Capability.COPY, lambda c: c.copy(0, 1)),
            (Capability.SHIFT, lambda c: c.shift(0, 0, 1, 1)),
            (Capability.STATE_IO, lambda c: c.save_state(0)),
            (Capability.STATE_IO, lambda c: c.load_state(0, b"")),
            (Capability.EMBEDDING, lambda c: c.embedding(0)),
            (Capability.ABORT, lambda c: c.abort(True)),
            (Capability.MULTI_SEQUENCE, lambda c: c.model.create_context(TWO)),
        ],
    )
    def test_undeclared(
        self, engine: MakeEngine, capability: Capability, call: Any
    ) -> None:
        """An operation that is not declared is recorded and refused."""
        declared = NullScript().capabilities - {capability}
        one = engine(NullScript(capabilities=declared), sequences=1)
        with pytest.raises(
            (CapabilityError, ContextCreationError), match="does not declare"
        ):
            call(one.context)
        assert one.violations == ["undeclared"]


def test_every_kind_is_tested() -> None:
    """Every kind of violation appears in a test of the ledger."""
    files = Path(__file__).parent.glob("test_null_ledger*.py")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    assert not [kind for kind in ViolationKind if f'"{kind}"' not in text]
