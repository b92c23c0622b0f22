"""Decoding, what each kind of cache can remove, lies, and saved state."""

from __future__ import annotations

import pytest

from llmcore.errors import CapabilityError, DecodeError, StateError
from llmcore.testing import NullScript
from llmcore.values import CacheKind, Capability

from .conftest import MakeEngine, batch

TEN = list(range(97, 107))
KINDS = [k for k in CacheKind if k is not CacheKind.NONE]


class TestDecode:
    def test_batches_do_not_matter(self, engine: MakeEngine) -> None:
        """Two sequences in one batch get what they would get alone."""
        one, two = engine(), engine()
        one.context.decode(batch((0, 0, TEN), (1, 0, [65, 66])))
        both = [int(one.context.logits(row).argmax()) for row in (9, 11)]
        assert [two.feed(TEN), two.feed([65, 66], sequence=1)] == both

    def test_no_slot(self, engine: MakeEngine) -> None:
        """A full sequence refuses the batch, applies nothing, and is no violation."""
        one = engine(context_size=12)
        one.feed(TEN)
        with pytest.raises(DecodeError, match="no room for 13 tokens"):
            one.feed([1, 2, 3], at=10)
        assert (one.context.bounds(0), one.violations) == ((0, 9), [])

    def test_neighbour_has_its_own_room(self, engine: MakeEngine) -> None:
        """The context size is per sequence."""
        one = engine(context_size=10)
        one.feed(TEN)
        one.feed(TEN, sequence=1)
        assert one.context.bounds(1) == (0, 9)

    def test_sliding_window_never_fills(self, engine: MakeEngine) -> None:
        """A window that is smaller than the context never fills it."""
        one = engine(
            NullScript(cache_kind=CacheKind.SLIDING_WINDOW, window=4), context_size=8
        )
        one.feed(TEN)
        assert one.context.bounds(0) == (6, 9)

    def test_params_are_resolved(self, engine: MakeEngine) -> None:
        """The context says what was given, with nothing left open."""
        params = engine(batch_size=32, threads=2).context.params
        assert (
            params.micro_batch_size,
            params.threads,
            params.threads_batch,
        ) == (32, 2, 2)


class TestRemove:
    def test_full(self, engine: MakeEngine) -> None:
        """A full cache gives back its end, and the text follows what remains."""
        one = engine()
        one.feed(TEN)
        assert one.context.remove(0, 4)
        assert one.context.bounds(0) == (0, 3)
        assert engine().feed(TEN[:6]) == one.feed(TEN[4:6], at=4)

    def test_middle(self, engine: MakeEngine) -> None:
        """A full cache gives back a part in the middle, to be closed by a shift."""
        one = engine()
        one.feed(TEN)
        assert one.context.remove(0, 2, 5)
        one.context.shift(0, 5, 10, -3)
        assert one.context.bounds(0) == (0, 6)

    @pytest.mark.parametrize("kind", [CacheKind.RECURRENT, CacheKind.HYBRID])
    def test_recurrent(self, engine: MakeEngine, kind: CacheKind) -> None:
        """Recurrent state gives back nothing but all, and stands for its last token."""
        one = engine(NullScript(cache_kind=kind))
        one.feed(TEN)
        assert not one.context.remove(0, 9)
        assert one.context.bounds(0) == (9, 9)
        assert one.context.remove(0, 0)
        assert one.context.bounds(0) == (-1, -1)

    def test_sliding_before_it_slid(self, engine: MakeEngine) -> None:
        """A window that has lost nothing gives back its end."""
        one = engine(NullScript(cache_kind=CacheKind.SLIDING_WINDOW, window=10))
        one.feed(TEN)
        assert one.context.remove(0, 4)
        assert one.context.bounds(0) == (0, 3)

    def test_sliding_after_it_slid(self, engine: MakeEngine) -> None:
        """A window that has slid gives back nothing but all, and is unchanged."""
        one = engine(NullScript(cache_kind=CacheKind.SLIDING_WINDOW, window=9))
        one.feed(TEN)
        assert not one.context.remove(0, 8)
        assert one.context.bounds(0) == (1, 9)

    @pytest.mark.parametrize("kind", KINDS)
    def test_nothing(self, engine: MakeEngine, kind: CacheKind) -> None:
        """Removing what is not there always succeeds."""
        one = engine(NullScript(cache_kind=kind))
        one.feed(TEN)
        assert one.context.remove(0, 10)

    @pytest.mark.parametrize("kind", KINDS)
    def test_clear(self, engine: MakeEngine, kind: CacheKind) -> None:
        """A cleared sequence is as new, and its neighbour is untouched."""
        one = engine(NullScript(cache_kind=kind))
        first = one.write(TEN, 5)
        one.feed(TEN, sequence=1)
        one.context.clear(0)
        assert (one.context.bounds(0), one.context.bounds(1)[1]) == ((-1, -1), 9)
        assert first == one.write(TEN, 5)

    def test_clear_all(self, engine: MakeEngine) -> None:
        """All sequences can be cleared at once."""
        one = engine()
        one.feed(TEN)
        one.feed(TEN, sequence=1)
        one.context.clear(data=True)
        assert [one.context.bounds(n) for n in (0, 1)] == [(-1, -1)] * 2


class TestLie:
    def test_empty_bounds(self, engine: MakeEngine) -> None:
        """A lying removal says yes, looks empty, and spoils what follows."""
        one = engine(NullScript(lie=True))
        one.feed(TEN)
        assert one.context.remove(0, 4)
        assert one.context.bounds(0) == (-1, -1)
        assert engine().write(TEN, 9) != one.write(TEN[4:], 9, at=4)
        assert one.violations == []

    def test_stale_cells_remain(self, engine: MakeEngine) -> None:
        """Starting again over the remains spoils what follows too."""
        one = engine(NullScript(lie=True))
        one.feed(TEN)
        one.context.remove(0, 4)
        assert engine().write(TEN, 9) != one.write(TEN, 9)

    @pytest.mark.parametrize("lie", [True, "stay"])
    def test_clear_heals(self, engine: MakeEngine, lie: bool) -> None:
        """After a clear the truth is back."""
        one = engine(NullScript(lie=lie))
        one.feed(TEN)
        one.context.remove(0, 4)
        one.context.clear(0)
        assert engine().write(TEN, 9) == one.write(TEN, 9)

    def test_truth_does_not_heal(self, engine: MakeEngine) -> None:
        """A true removal after a lie leaves the damage."""
        one = engine(NullScript(lie=True))
        one.feed(TEN)
        one.context.remove(0, 4)
        one.script.lie = False
        one.feed([1, 2], at=4)
        one.context.remove(0, 4)
        assert engine().write(TEN, 9) != one.write(TEN[4:], 9, at=4)

    def test_stay(self, engine: MakeEngine) -> None:
        """The other lie removes nothing and shows it in the bounds."""
        one = engine(NullScript(lie="stay"))
        one.feed(TEN)
        assert one.context.remove(0, 4)
        assert one.context.bounds(0) == (0, 9)


class TestNoCache:
    def test_forgets(self, engine: MakeEngine) -> None:
        """A model without a cache starts every batch from nothing."""
        one = engine(NullScript(cache_kind=CacheKind.NONE), embeddings=True)
        vectors = []
        for _ in range(2):
            one.context.decode(batch((0, 0, TEN)))
            vectors.append(one.context.embedding(0))
        assert one.context.bounds(0) == (-1, -1)
        assert (vectors[0] == vectors[1]).all()

    def test_has_no_cache_operations(self, engine: MakeEngine) -> None:
        """It declares nothing that needs a cache."""
        one = engine(NullScript(cache_kind=CacheKind.NONE))
        assert not one.model.info.capabilities & {
            Capability.PARTIAL_REMOVE,
            Capability.STATE_IO,
            Capability.COPY,
            Capability.SHIFT,
        }


class TestCopyAndState:
    def test_copy(self, engine: MakeEngine) -> None:
        """A copy goes on alike and is independent."""
        one = engine()
        one.feed(TEN)
        one.context.copy(0, 1)
        one.context.clear(0)
        assert engine().write([*TEN, 7], 5) == one.write([7], 5, at=10, sequence=1)

    @pytest.mark.parametrize("kind", KINDS)
    def test_round_trip(self, engine: MakeEngine, kind: CacheKind) -> None:
        """Saved state goes on alike in another context, for every kind."""
        one, two = (
            engine(NullScript(cache_kind=kind)),
            engine(NullScript(cache_kind=kind)),
        )
        one.feed(TEN)
        two.context.load_state(1, one.context.save_state(0))
        expected = one.write([7], 9, at=10)
        assert expected == two.write([7], 9, at=10, sequence=1)

    @pytest.mark.parametrize("cut", [0, 5, 27, 60, -1])
    def test_truncated(self, engine: MakeEngine, cut: int) -> None:
        """Truncated state is refused and nothing changes."""
        one = engine()
        one.feed(TEN)
        data = one.context.save_state(0)[:cut]
        with pytest.raises(StateError):
            one.context.load_state(0, data)
        assert (one.context.bounds(0), one.violations) == ((0, 9), [])

    def test_damaged(self, engine: MakeEngine) -> None:
        """One changed byte is noticed."""
        one = engine()
        one.feed(TEN)
        data = bytearray(one.context.save_state(0))
        data[-1] ^= 1
        with pytest.raises(StateError, match="damaged"):
            one.context.load_state(0, bytes(data))

    def test_too_long(self, engine: MakeEngine) -> None:
        """State that does not fit is refused."""
        one, two = engine(), engine(context_size=8)
        one.feed(TEN)
        with pytest.raises(StateError, match="the sequence holds 8"):
            two.context.load_state(0, one.context.save_state(0))


def test_embedding_needs_its_context(engine: MakeEngine) -> None:
    """A context for generation has no embeddings."""
    one = engine()
    one.feed(TEN)
    with pytest.raises(CapabilityError, match="embeddings=True"):
        one.context.embedding(0)
