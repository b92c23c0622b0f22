from __future__ import annotations

import pytest

from llmcore.errors import DisposeError

from .kit import Ledger


class TestWith:
    def test_exit(self, ledger: Ledger) -> None:
        """The end of a ``with`` block disposes."""
        with ledger.make("model") as model:
            assert not model.disposed

        assert ledger.freed == ["model"]

    def test_exception(self, ledger: Ledger) -> None:
        """A block that raises disposes, and raises just that."""
        error = ZeroDivisionError()

        with pytest.raises(ZeroDivisionError) as caught, ledger.make("model"):
            raise error

        assert caught.value is error
        assert ledger.freed == ["model"]

    def test_both_fail(self, ledger: Ledger) -> None:
        """If the teardown raises too, the error of the block is its context."""
        with (
            pytest.raises(DisposeError) as caught,
            ledger.make("model", fail=ValueError()),
        ):
            raise ZeroDivisionError

        assert isinstance(caught.value.__context__, ZeroDivisionError)

    def test_moved(self, ledger: Ledger) -> None:
        """A block does not dispose what was moved to another owner."""
        with ledger.make("owner") as owner:
            with ledger.make("model") as model:
                model.move_to(owner)

            assert not model.disposed

        assert ledger.freed == ["model", "owner"]

    @pytest.mark.anyio
    async def test_async(self, ledger: Ledger) -> None:
        """The end of an ``async with`` block disposes."""
        async with ledger.make("model") as model:
            assert not model.disposed

        assert ledger.freed == ["model"]

    @pytest.mark.anyio
    async def test_async_moved(self, ledger: Ledger) -> None:
        """Nor does an ``async with`` dispose what was moved."""
        async with ledger.make("owner") as owner:
            async with ledger.make("model") as model:
                model.move_to(owner)

            assert not model.disposed

    @pytest.mark.anyio
    async def test_async_failing(self, ledger: Ledger) -> None:
        """`adispose` raises what `dispose` raises."""
        model = ledger.make("model", fail=ValueError())

        with pytest.raises(DisposeError):
            await model.adispose()

    @pytest.mark.anyio
    async def test_async_cancelled(self, ledger: Ledger) -> None:
        """A cancelled block disposes completely before the cancellation goes on."""
        import anyio

        with anyio.CancelScope() as scope:
            async with ledger.make("model"):
                scope.cancel()
                await anyio.sleep_forever()

        assert scope.cancelled_caught
        assert ledger.freed == ["model"]

    @pytest.mark.anyio
    async def test_async_loop_runs(self, ledger: Ledger) -> None:
        """The event loop runs while a disposal waits for a use."""
        import anyio

        from .kit import used_elsewhere

        model = ledger.make("model")
        with used_elsewhere(ledger, model) as gate:
            async with anyio.create_task_group() as group:
                group.start_soon(model.adispose)
                while not model.disposed:
                    await anyio.lowlevel.checkpoint()
                gate.open()

        assert ledger.freed == ["model"]
