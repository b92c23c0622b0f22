"""`get_llama`, `Llama` and `Model`: instances, loads and what may go wrong in them."""

from __future__ import annotations

import threading

import anyio
import pytest

import llmcore
from llmcore.backends.null.context import NullContext
from llmcore.errors import (
    BackendCrashedError,
    BackendError,
    BrokenError,
    CapabilityError,
    ContextCreationError,
    DisposedError,
    ModelLoadError,
    OperationCancelledError,
    UnknownBackendError,
)
from llmcore.testing import NullScript, null_backend
from llmcore.values import Capability


class TestInstances:
    def test_each_call_makes_a_new_instance(self):
        """Two instances are independent: disposing one leaves the other usable."""
        with llmcore.get_llama("null") as one, llmcore.get_llama("null") as two:
            one.dispose()
            with two.load_model() as model:
                assert not model.disposed

    def test_an_unknown_backend_names_the_near_ones(self):
        """A misspelt backend is an error that suggests the right one."""
        with pytest.raises(UnknownBackendError, match="nul"):
            llmcore.get_llama("nul")

    def test_the_default_instance_is_shared_until_disposed(self, monkeypatch):
        """`default_llama` is one object; after its disposal there is a new one."""
        monkeypatch.setattr("llmcore.opening.get_llama", lambda: make())

        def make():
            return llmcore.Llama(null_backend(), null_backend().info)

        first = llmcore.default_llama()
        assert first is llmcore.default_llama()
        first.dispose()
        with llmcore.default_llama() as second:
            assert first is not second

    def test_memory_and_live_tree_are_shown(self, stage):
        """An instance tells its devices, their memory, and what lives on it."""
        stage = stage(capacity_bytes=1 << 30)
        state = stage.llama.memory_state()
        assert state.total == state.used + state.free == 1 << 30
        assert 0 == stage.llama.get_vram_state().total
        sequence = stage.sequence()
        kinds = [info.kind for info in stage.llama.resources()]
        assert ["llama", "model", "context", "sequence"] == kinds
        assert "conftest.py" in llmcore.format_tree(sequence._node)


class TestLoad:
    def test_progress_is_reported(self, stage):
        """Progress begins at 0.0, ends at 1.0 and never goes back."""
        seen = []
        with stage().llama.load_model(progress=seen.append):
            assert [0.0, 1.0] == [seen[0], seen[-1]]
            assert sorted(seen) == seen

    @pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
    def test_a_load_can_be_cancelled_at_any_time(self, stage, at):
        """Progress that returns False cancels, at the very end too; nothing is left."""
        stage = stage()
        with pytest.raises(OperationCancelledError):
            stage.llama.load_model(progress=lambda share: share < at)
        assert 1 == stage.ledger.live["model"]

    def test_what_progress_raises_comes_out(self, stage):
        """An exception in the callback ends the load and reaches the caller."""
        stage = stage()

        def fail(share):
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            stage.llama.load_model(progress=fail)
        assert 1 == stage.ledger.live["model"]

    def test_disposing_from_progress_ends_the_load(self, stage):
        """A callback may dispose the instance: the load ends with DisposedError."""
        stage = stage()
        with pytest.raises(DisposedError, match="llama#"):
            stage.llama.load_model(progress=lambda share: stage.llama.dispose())
        stage.llama.dispose()
        assert {} == stage.ledger.live

    def test_disposing_waits_for_a_load(self, stage, worker):
        """A load that runs is cancelled, and nothing is freed under it."""
        stage = stage()
        with stage.script.gate("load") as gate:
            load = worker(stage.llama.load_model)
            gate.wait_entered()
            disposal = worker(stage.llama.dispose)
            while not stage.llama.disposed:
                pass
        load.join()
        disposal.join()
        assert isinstance(load.error, DisposedError)
        assert {} == stage.ledger.live

    def test_a_failed_load_names_path_and_reason(self, stage):
        """A load error is typed, and the instance stays usable."""
        stage = stage()
        stage.script.fail("load", error=ModelLoadError("a.gguf", "no luck"))
        with pytest.raises(ModelLoadError, match=r"'a\.gguf': no luck"):
            stage.llama.load_model()
        stage.keep(stage.llama.load_model())

    @pytest.mark.parametrize("bad", [{"gpu_layers": -1}, {"mmap": 1}])
    def test_bad_parameters_never_reach_the_engine(self, stage, bad):
        """A parameter out of range names itself and calls nothing."""
        stage = stage()
        with pytest.raises(ValueError, match=next(iter(bad))):
            stage.llama.load_model(**bad)
        assert 1 == stage.ledger.calls["load"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
class TestAsync:
    async def test_everything_without_blocking(self, stage, anyio_backend):
        """Load, chat, stream and dispose have async forms."""
        stage = stage(answer="Yes.")
        async with await stage.llama.aload_model() as model:
            with model.create_context(context_size=256) as context:
                sequence = context.get_sequence()
                chat = llmcore.ChatSession(sequence)
                assert "Yes." == await chat.aprompt("Well?")
                async with chat.stream("And?") as stream:
                    assert "Yes." == "".join([d.text async for d in stream])
                assert 4 == len(chat.history)
        assert sequence.disposed

    async def test_a_cancelled_load_leaves_nothing(self, stage, anyio_backend):
        """Cancelling the task that loads cancels the load."""
        stage = stage()
        with stage.script.gate("load") as gate:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stage.llama.aload_model)
                await anyio.to_thread.run_sync(gate.wait_entered)
                tasks.cancel_scope.cancel()
        await stage.model.adispose()
        await stage.llama.adispose()
        assert {} == stage.ledger.live

    async def test_a_cancelled_stream_frees_its_sequence(self, stage, anyio_backend):
        """A task that is cancelled inside a step gives the sequence back."""
        stage = stage()
        sequence = stage.sequence()
        stream = sequence.generate(stage.tokens("abc"))
        with stage.script.gate("decode") as gate:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.__anext__)
                await anyio.to_thread.run_sync(gate.wait_entered)
                tasks.cancel_scope.cancel()
        await anyio.to_thread.run_sync(stream.close)
        sequence.evaluate([1])

    async def test_the_loop_runs_while_the_engine_works(self, stage, anyio_backend):
        """While a step is inside the engine the event loop goes on."""
        stage = stage()
        with stage.script.gate("decode") as gate:
            stream = stage.sequence().generate(stage.tokens("abc"), max_tokens=1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.__anext__)
                await anyio.to_thread.run_sync(gate.wait_entered)
                await anyio.lowlevel.checkpoint()  # we are here: it does
                gate.open()
        assert 1 == len(stream.result.tokens)


class TestContexts:
    def test_a_context_that_fails_leaves_the_model_usable(self, stage):
        """A failed creation holds nothing, and the next one works."""
        stage = stage()
        stage.script.fail("create_context")
        with pytest.raises(ContextCreationError):
            stage.context()
        assert {"backend": 1, "model": 1} == stage.ledger.live
        stage.context()

    def test_several_sequences_need_the_capability(self, stage):
        """More than one sequence on a backend with one is a CapabilityError."""
        stage = stage(
            capabilities=NullScript().capabilities - {Capability.MULTI_SEQUENCE}
        )
        with pytest.raises(CapabilityError, match="multi-sequence"):
            stage.context(sequences=2)

    def test_embedding_needs_a_context_for_it(self, stage):
        """A context for generation refuses to embed and says how."""
        stage = stage()
        with pytest.raises(CapabilityError, match="embeddings=True"):
            stage.context().embed("text")
        vector = stage.context(embeddings=True).embed("text")
        assert (stage.model.info.embedding_size,) == vector.shape

    def test_memory_info_holds_its_invariants(self, stage):
        """Tokens fit the size; the total is at least weights and cache."""
        stage = stage()
        sequence = stage.sequence(sequences=2)
        sequence.evaluate(stage.tokens("abc"))
        info = sequence.context.memory_info()
        assert 3 == info.token_count <= info.context_size == 256
        assert info.total_allocated >= info.model_size + info.kv_cache_size

    def test_a_lock_is_shared_within_the_declared_scope(self, stage, worker):
        """A backend that says "process" never has two calls at once."""
        stages = [stage(exclusion="process"), stage(exclusion="process")]
        sequences = [s.sequence() for s in stages]
        with stages[0].script.gate("decode") as gate:
            first = worker(lambda: sequences[0].evaluate([1]))
            gate.wait_entered()
            second = worker(lambda: sequences[1].evaluate([1]))
            assert 0 == stages[1].decodes()
        first.join()
        second.join()
        assert 1 == stages[1].decodes()


class TestErrors:
    def test_a_foreign_exception_becomes_a_backend_error(self, stage):
        """What an engine raises of its own is wrapped, with the original as cause."""
        stage = stage()
        stage.script.fail("decode", error=ZeroDivisionError("ouch"))
        with pytest.raises(BackendError, match="null backend raised Zero") as caught:
            stage.sequence().evaluate([1])
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def test_a_dead_engine_breaks_all_that_lives_on_it(self, stage):
        """After a crash everything says so and can still be disposed."""
        stage = stage()
        sequence = stage.sequence()
        stage.script.fail("decode", error=BackendCrashedError("killed"))
        with pytest.raises(BackendCrashedError):
            sequence.evaluate([1])
        for use in (stage.llama.devices, stage.context, sequence.clear):
            with pytest.raises(BrokenError, match="killed"):
                use()
        stage.llama.dispose()
        assert stage.llama.disposed

    def test_many_threads_make_and_use_sequences(self, stage, worker):
        """Threads share a context, each on its own sequence, with serial results."""
        stage = stage()
        context = stage.context(sequences=4)
        prompts = [stage.tokens(text) for text in ("one", "two", "three", "four")]
        start = threading.Barrier(4)

        def answer(prompt):
            with context.get_sequence() as sequence:
                start.wait(20)
                return sequence.generate(prompt, max_tokens=20).result.tokens

        together = [w.join() for w in [worker(lambda p=p: answer(p)) for p in prompts]]
        with context.get_sequence() as sequence:
            alone = [sequence.generate(p, max_tokens=20).result.tokens for p in prompts]
        assert alone == together


class TestFailedCreation:
    def test_a_context_that_cannot_tell_its_parameters_is_closed(
        self, stage, monkeypatch
    ):
        """A backend that fails when asked what it made leaves nothing behind."""
        stage = stage()

        def broken(self):
            raise ZeroDivisionError("no parameters")

        monkeypatch.setattr(NullContext, "params", property(broken))
        with pytest.raises(BackendError, match="no parameters"):
            stage.context()
        assert {"backend": 1, "model": 1} == stage.ledger.live
