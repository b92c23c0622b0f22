"""`Budget`: limits, reservations, and what is told when they do not fit."""

from __future__ import annotations

import copy
import pickle
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcore.errors import InsufficientMemoryError
from llmcore.memory import Budget, Footprint, Term
from llmcore.memory.machine import available_ram, process_rss
from llmcore.values import Device


def bytes_on(**devices: int) -> Footprint:
    return Footprint(
        tuple(
            Term(device=device, purpose="other", size=size)
            for device, size in devices.items()
        )
    )


def gpu(name: str, free: int) -> Device:
    return Device(name=name, kind="gpu", total=10 * free, free=free)


class TestLimits:
    @pytest.mark.parametrize("limit", ["all", -1, 1.5, True, {"cpu": "much"}])
    def test_a_senseless_limit_is_refused(self, limit):
        """A limit is bytes, `auto`, None or a dict of these."""
        with pytest.raises(ValueError, match="a limit must be"):
            Budget(limit)

    def test_a_senseless_headroom_is_refused(self):
        """Headroom is a share of 0 or more."""
        with pytest.raises(ValueError, match="headroom"):
            Budget(1, headroom=-0.1)

    def test_one_limit_counts_everything_together(self):
        """A number limits the RAM and all GPUs together."""
        budget = Budget(100, headroom=0)
        budget.reserve(bytes_on(cpu=60, CUDA0=30), "a")
        (pool,) = budget.pools
        assert (pool.limit, pool.reserved, pool.free) == (100, 90, 10)
        with pytest.raises(InsufficientMemoryError):
            budget.reserve(bytes_on(CUDA1=11), "b")

    def test_limits_by_device(self):
        """Each device has its own limit; only one that is full refuses."""
        budget = Budget({"ram": 100, "CUDA0": 50, "CUDA1": None}, headroom=0)
        budget.reserve(bytes_on(cpu=100, CUDA0=50), "a")
        budget.reserve(bytes_on(CUDA1=10**12), "b")
        with pytest.raises(InsufficientMemoryError):
            budget.reserve(bytes_on(CUDA0=1), "c")
        with pytest.raises(InsufficientMemoryError):
            budget.reserve(bytes_on(cpu=1), "d")

    def test_vram_limits_each_gpu(self):
        """``"vram"`` is the limit of each GPU that has none of its own."""
        budget = Budget({"ram": None, "vram": 10, "CUDA1": 20}, headroom=0)
        budget.reserve(bytes_on(CUDA0=10, CUDA1=20), "a")
        with pytest.raises(InsufficientMemoryError):
            budget.reserve(bytes_on(CUDA2=11), "b")

    def test_auto_is_what_is_free_at_first(self):
        """``"auto"`` takes a device's free memory when it first comes, and keeps it."""
        budget = Budget("auto", headroom=0)
        budget.learn([gpu("CUDA0", 100)])
        budget.learn([gpu("CUDA0", 5)])
        budget.reserve(bytes_on(CUDA0=100), "a")
        with pytest.raises(InsufficientMemoryError):
            budget.reserve(bytes_on(CUDA0=1), "b")

    def test_auto_of_a_silent_gpu_is_no_limit(self):
        """A GPU that does not tell its memory has no limit that could be wrong."""
        budget = Budget("auto")
        budget.learn([gpu("GPU0", 0)])
        budget.reserve(bytes_on(GPU0=1 << 40), "a")

    def test_auto_knows_the_ram(self):
        """The limit of the RAM is what the machine could still give."""
        (pool,) = Budget("auto").pools
        assert pool.name == "cpu"
        assert pool.limit is not None
        assert 0 < pool.limit <= 2 * (available_ram() or 0)

    def test_no_limit(self):
        """None refuses nothing, and still counts."""
        budget = Budget(None)
        budget.reserve(bytes_on(cpu=10**15), "a")
        assert budget.reserved == {"cpu": round(1.2 * 10**15)}


class TestReservations:
    def test_headroom_is_on_top(self):
        """Each reservation counts with its headroom."""
        budget = Budget(120, headroom=0.2)
        with budget.reserve(bytes_on(cpu=100), "a") as held:
            assert held.amounts == {"cpu": 120}
        assert budget.reserved == {}

    def test_release_twice_is_fine(self):
        """What is released is free once, however often it is released."""
        budget = Budget(10, headroom=0)
        one, two = (budget.reserve(bytes_on(cpu=5), name) for name in "ab")
        one.release()
        one.release()
        assert budget.reserved == {"cpu": 5}
        assert (one.amounts, two.amounts) == ({}, {"cpu": 5})

    def test_a_part_comes_out_of_its_whole(self):
        """A reservation within another takes nothing new, and lives on after it."""
        budget = Budget(100, headroom=0)
        with budget.reserve(bytes_on(cpu=100), "whole") as whole:
            part = budget.reserve(bytes_on(cpu=40), "part", within=whole)
            assert (whole.amounts, part.amounts) == ({"cpu": 60}, {"cpu": 40})
        assert budget.holders == {"part": 40}

    def test_a_part_may_be_larger_than_its_whole(self):
        """What the whole has not is taken from what is free, or refused."""
        budget = Budget(100, headroom=0)
        whole = budget.reserve(bytes_on(cpu=50), "whole")
        budget.reserve(bytes_on(cpu=80), "part", within=whole)
        assert budget.reserved == {"cpu": 80}
        with pytest.raises(InsufficientMemoryError):
            budget.reserve(bytes_on(cpu=30), "more", within=whole)

    def test_settling_takes_and_gives_back(self):
        """A settled reservation holds what is used, out of its whole where it can."""
        budget = Budget(100, headroom=0)
        whole = budget.reserve(bytes_on(cpu=100), "whole")
        part = budget.reserve(bytes_on(cpu=10), "part", within=whole)
        part.settle(bytes_on(cpu=70))
        assert (whole.amounts, part.amounts) == ({"cpu": 30}, {"cpu": 70})
        part.settle(bytes_on(cpu=20))
        assert budget.reserved == {"cpu": 50}

    def test_headroom_is_what_a_wrong_estimate_may_use(self):
        """If there is no room for the headroom, the bytes themselves are enough."""
        budget = Budget(120, headroom=0.2)
        held = budget.reserve(bytes_on(cpu=100), "a")
        held.settle(bytes_on(cpu=115))
        assert held.amounts == {"cpu": 120}

    def test_a_settlement_that_does_not_fit_changes_nothing(self):
        """More than is free is refused, and the reservation is as before."""
        budget = Budget(100, headroom=0)
        held = budget.reserve(bytes_on(cpu=60), "a")
        with pytest.raises(InsufficientMemoryError):
            held.settle(bytes_on(cpu=101))
        assert (held.amounts, held.footprint.total) == ({"cpu": 60}, 60)

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=40))
    def test_no_program_overruns_it(self, steps):
        """Whatever is reserved, settled and released, the sum is never above it."""
        budget = Budget(100, headroom=0.1)
        held = [budget.reserve(Footprint(), "none")]
        for act, size in steps:
            one = held[size % len(held)]
            try:
                if act == 0:
                    held.append(budget.reserve(bytes_on(cpu=size), "n"))
                elif act == 1:
                    held.append(budget.reserve(bytes_on(cpu=size), "w", within=one))
                elif act == 2 and one.amounts:
                    one.settle(bytes_on(cpu=size))
                else:
                    one.release()
            except InsufficientMemoryError:
                pass
            total = sum(sum(one.amounts.values()) for one in held)
            assert total == sum(budget.reserved.values()) <= 100
            assert all(n >= 0 for one in held for n in one.amounts.values())

    def test_threads_cannot_overrun_it(self):
        """Of many threads that want the last bytes, as many get them as there are."""
        budget = Budget(5, headroom=0)
        start = threading.Barrier(20)
        got: list[object] = []

        def take() -> None:
            start.wait()
            with suppress(InsufficientMemoryError):
                got.append(budget.reserve(bytes_on(cpu=1), "a"))

        threads = [threading.Thread(target=take) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 5


class TestShares:
    def test_a_share_counts_together(self):
        """Reservations of one share are one line of the ledger."""
        budget = Budget(100, headroom=0)
        share = budget.share("model 'm'")
        share.reserve(bytes_on(cpu=10), "weights")
        share.reserve(bytes_on(cpu=20), "context")
        budget.reserve(bytes_on(cpu=5), "other")
        assert share.reserved == {"cpu": 30}
        assert budget.holders == {"model 'm'": 30, "other": 5}

    def test_what_would_fit_without_a_share(self):
        """It is known what would fit if a share gave all back, without doing it."""
        budget = Budget(100, headroom=0)
        share = budget.share("m")
        share.reserve(bytes_on(cpu=60), "weights")
        budget.reserve(bytes_on(cpu=30), "other")
        assert not budget.would_fit(bytes_on(cpu=50))
        assert budget.would_fit(bytes_on(cpu=70), without=[share])
        assert not budget.would_fit(bytes_on(cpu=71), without=[share])


class TestTheAccount:
    def refusal(self) -> InsufficientMemoryError:
        budget = Budget({"cpu": 100, "CUDA0": 10}, headroom=0.2)
        budget.reserve(bytes_on(cpu=50), "model 'one'")
        with pytest.raises(InsufficientMemoryError) as caught:
            budget.reserve(bytes_on(cpu=50, CUDA0=1), "model 'two'")
        return caught.value

    def test_it_names_who_has_what(self):
        """The account has the need, the pools and the holders; so have its words."""
        error = self.refusal()
        account = error.account
        assert account.what == "model 'two'"
        assert account.footprint.devices == {"cpu": 50, "CUDA0": 1}
        assert account.holders == {"model 'one'": 60}
        assert {pool.name: pool.free for pool in account.pools} == {
            "cpu": 40,
            "CUDA0": 10,
        }
        assert "model 'one': 60 B" in account.explain()
        assert "40 B of 100 B free on cpu" in str(error)

    def test_it_survives_copying(self):
        """The error can be pickled and copied, with its account."""
        error = self.refusal()
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (str(twin), twin.account) == (str(error), error.account)

    def test_nothing_was_reserved(self):
        """A refusal leaves the budget as it was."""
        budget = Budget(10, headroom=0)
        with pytest.raises(InsufficientMemoryError):
            budget.reserve(bytes_on(cpu=11), "a")
        assert (budget.reserved, budget.holders) == ({}, {})
        assert budget.shortage(bytes_on(cpu=10), "a") is None
        assert budget.shortage(bytes_on(cpu=11), "a") is not None


def test_the_process_knows_its_size():
    """The process uses some memory, where the platform tells."""
    assert 0 < (process_rss() or 0) < 1 << 40
