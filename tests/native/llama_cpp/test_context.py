"""Creating contexts, evaluating, and what can be done to a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llmcore.backends.llama_cpp import native_params
from llmcore.backends.llama_cpp.backend import LlamaCppBackend
from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.backends.llama_cpp.native import C
from llmcore.errors import DecodeError, InsufficientMemoryError
from llmcore.spi import Batch
from llmcore.values import KV_TYPES, ContextParams, ModelInfo, ModelParams
from llmcore_conformance.models import tiny_llama

if TYPE_CHECKING:
    from conftest import MakeRun

TEXT = list(range(262, 302))
SMALL_STEPS = {"context_size": 1024, "batch_size": 32, "micro_batch_size": 32}
CLOSE = {"rtol": 0.01, "atol": 0.01}


class TestCreating:
    def test_size_is_per_sequence(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """Each sequence can hold at least what was asked for."""
        given = run(llama, context_size=300, sequences=3).context.params

        assert 300 <= int(given.context_size) < 600
        assert given.sequences == 3

    def test_couplings(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """What was really given has no None and no micro-batch above the batch."""
        given = run(llama, batch_size=32, threads=None).context.params

        assert (given.batch_size, given.micro_batch_size) == (32, 32)
        assert given.threads is not None
        assert given.threads_batch == given.threads

    @pytest.mark.parametrize("kind", KV_TYPES)
    def test_kv_types(self, llama: LlamaCppModel, run: MakeRun, kind: str) -> None:
        """Each element type works for both halves of the cache, near the exact one."""
        exact = run(llama, kv_type_k="f32", kv_type_v="f32").feed(TEXT)
        logits = run(llama, kv_type_k=kind, kv_type_v=kind).feed(TEXT)

        assert np.corrcoef(exact, logits)[0, 1] > 0.95

    @pytest.mark.parametrize("field", ["kv_type_k", "kv_type_v"])
    def test_head_size(
        self,
        load: Callable[[Path], LlamaCppModel],
        run: MakeRun,
        tmp_path: Path,
        field: str,
    ) -> None:
        """A block type that does not divide the heads is refused by name."""
        model = load(tiny_llama(tmp_path / "narrow.gguf", embedding=48))

        with pytest.raises(ValueError, match=f"{field}='q8_0' needs heads"):
            run(model, **{field: "q8_0"})

    def test_too_many(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """A product of sizes that the engine cannot count is refused by name."""
        with pytest.raises(ValueError, match="context_size=2147483647"):
            run(llama, context_size=2**31 - 1, sequences=4)

    def test_out_of_memory(
        self, backend: LlamaCppBackend, smol: LlamaCppModel, run: MakeRun
    ) -> None:
        """A cache larger than the memory is an error, and the model stays usable."""
        info = smol.info
        token = 8 * info.layers * info.kv_heads * info.embedding_size // info.heads
        size = 4 * backend.devices()[0].total // token

        with pytest.raises(InsufficientMemoryError, match="failed to allocate"):
            run(smol, context_size=size, kv_type_k="f32", kv_type_v="f32")
        run(smol)

    def test_memory(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """The cache has the size that arithmetic gives; working memory is reported."""
        usage = run(llama, context_size=1024, sequences=2).context.memory()

        values = 2 * 1024 * llama.info.layers * 2 * 32  # of keys and values, 1 head
        assert 2 * values == usage.kv_cache
        assert usage.compute > 0


class TestEvaluating:
    def test_parts(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """A text in parts gives the same logits as the whole."""
        whole = run(llama).feed(TEXT)
        parts = run(llama)
        parts.feed(TEXT[:7])

        np.testing.assert_allclose(whole, parts.feed(TEXT[7:], at=7), **CLOSE)

    def test_batched(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """Sequences in one batch do not see each other."""
        two = run(llama, sequences=2).context
        count = len(TEXT)
        other = TEXT[::-1]
        two.decode(
            Batch(
                TEXT + other,
                [*range(count), *range(count)],
                [0] * count + [1] * count,
                ([False] * (count - 1) + [True]) * 2,
            )
        )

        np.testing.assert_allclose(
            two.logits(count - 1), run(llama).feed(TEXT), **CLOSE
        )
        np.testing.assert_allclose(
            two.logits(2 * count - 1), run(llama).feed(other), **CLOSE
        )
        assert [(0, count - 1)] * 2 == [two.bounds(0), two.bounds(1)]

    @pytest.mark.parametrize("row", [-1, 0, 40])
    def test_no_such_row(self, llama: LlamaCppModel, run: MakeRun, row: int) -> None:
        """A row without output has no logits, and asking for them does no harm."""
        context = run(llama)
        context.feed(TEXT)

        with pytest.raises(DecodeError, match=f"row {row}"):
            context.context.logits(row)

    def test_full(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """A full cache is an error that names the code, and nothing is lost."""
        context = run(llama, context_size=256)
        context.feed([262] * 256)

        with pytest.raises(DecodeError, match="code 1"):
            context.feed([262], at=256)
        assert context.context.bounds(0) == (0, 255)

    def test_gap(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """A batch that the engine rejects leaves the cache as it was."""
        context = run(llama)
        context.feed(TEXT)

        with pytest.raises(DecodeError, match="code -1"):
            context.feed([262], at=len(TEXT) + 5)
        assert (0, len(TEXT) - 1) == context.context.bounds(0)


class TestCache:
    def test_remove_end(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """After removing an end, another one can follow."""
        context = run(llama)
        context.feed(TEXT)

        assert context.context.remove(0, 10)
        assert context.context.bounds(0) == (0, 9)
        np.testing.assert_allclose(
            context.feed([300], at=10), run(llama).feed([*TEXT[:10], 300]), **CLOSE
        )

    def test_clear(self, llama: LlamaCppModel, run: MakeRun) -> None:
        """One sequence can be emptied, or all of them."""
        context = run(llama, sequences=2)
        context.feed(TEXT)
        context.feed(TEXT, sequence=1)

        context.context.clear(0)
        assert [context.context.bounds(s) for s in (0, 1)] == [(-1, -1), (0, 39)]
        context.context.clear(data=True)
        assert context.context.bounds(1) == (-1, -1)


class TestSlidingWindow:
    def test_within(self, models: dict[str, LlamaCppModel], run: MakeRun) -> None:
        """An end is removed while the window before it is still there."""
        context = run(models["sliding"], **SMALL_STEPS)
        context.feed(TEXT)

        assert context.context.remove(0, 20)
        np.testing.assert_allclose(
            context.feed([300], at=20),
            run(models["sliding"]).feed([*TEXT[:20], 300]),
            **CLOSE,
        )

    def test_beyond(self, models: dict[str, LlamaCppModel], run: MakeRun) -> None:
        """What has left the window cannot come back: refused, and nothing changed."""
        context = run(models["sliding"], **SMALL_STEPS)
        context.feed(TEXT * 20)
        before = context.context.bounds(0)

        assert not context.context.remove(0, 100)
        assert before == context.context.bounds(0)
        assert before[1] == 799


def test_recurrent_remove(models: dict[str, LlamaCppModel], run: MakeRun) -> None:
    """No part of a recurrent state is removed, but all of it is."""
    context = run(models["recurrent"])
    context.feed(TEXT)

    assert not context.context.remove(0, 10)
    assert context.context.bounds(0) == (39, 39)
    assert context.context.remove(0, 0)
    assert context.context.bounds(0) == (-1, -1)


def test_every_field_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No parameter of the engine keeps a default that we did not write down."""
    set_by_us: list[set[str]] = []
    monkeypatch.setattr(native_params, "_fill", lambda _, v: set_by_us.append(set(v)))
    native_params.model_params(ModelParams(), C.llama_progress_callback())
    native_params.context_params(
        ContextParams(context_size=64), ModelInfo(architecture="x", vocab_size=1)
    )

    structures = (C.llama_model_params, C.llama_context_params)
    assert [{name for name, _ in s._fields_} for s in structures] == set_by_us


def test_closed_has_no_pointer(llama: LlamaCppModel) -> None:
    """A closed context has nothing left that could reach the engine."""
    context = llama.create_context(ContextParams(context_size=256))
    context.close()

    assert not {"_handle", "_memory"} & set(vars(context))
