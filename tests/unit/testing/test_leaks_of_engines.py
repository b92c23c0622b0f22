"""`leak_check` around engines that keep handles or memory, over the null engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import llmcore
from llmcore.testing import (
    LeakError,
    NullScript,
    checked,
    leak_check,
    null_backend,
)

from .leak_kit import leaks_of


class TestHandles:
    def test_left_open(self) -> None:
        """A backend that closes less than it made is found by what it says itself."""
        engine = null_backend()

        def work() -> None:
            with llmcore.get_llama(engine):
                engine.ledger.allocate("model", engine.handle)

        [leak] = leaks_of(work)

        assert leak.kind == "handle"
        assert "still has open: 1 model; nothing of llmcore stands for" in leak.text

    def test_left_open_on_a_live_one(self, llama: llmcore.Llama) -> None:
        """Also on an instance that lives on."""
        engine = null_backend()
        with llmcore.get_llama(engine) as outside:
            [leak] = leaks_of(lambda: engine.ledger.allocate("context"))

            assert leak.what == outside._node.label

    def test_told_once(self) -> None:
        """A handle that belongs to an object that leaks is told with that object."""
        made: list[llmcore.Llama] = []

        [leak] = leaks_of(
            lambda: made.append(llmcore.get_llama(checked(null_backend())))
        )
        made[0].dispose()

        assert leak.kind == "held"


class TestMemory:
    def test_grown(self) -> None:
        """More bytes than allowed are a leak, with both numbers."""
        hoard: list[bytes] = []
        numbers = r"RAM in use grew by .* MiB, and may by 1.0 MiB"
        with pytest.raises(LeakError, match=numbers), leak_check(memory=2**20):
            hoard.append(b"x" * 2**26)

    def test_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The memory of the GPUs counts where an instance that has some is given."""
        engine = null_backend(NullScript(model_bytes=2**30))
        monkeypatch.setattr(type(engine), "devices", as_gpu(type(engine).devices))
        with (
            llmcore.get_llama(engine) as llama,
            pytest.raises(LeakError) as caught,
            leak_check(memory=2**29, llama=llama) as check,
        ):
            model = llama.load_model()
            check.allow(model)
        assert [leak.what for leak in caught.value.leaks] == ["GPU memory"]


def as_gpu(devices: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The device of the null engine, as if it were a GPU."""

    def found(engine: Any) -> Any:
        from llmcore.values import Device

        [cpu] = devices(engine)
        return [Device(name="gpu", kind="gpu", total=cpu.total, free=cpu.free)]

    return found
