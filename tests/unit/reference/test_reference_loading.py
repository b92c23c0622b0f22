"""Loading: what is reported, what is refused, and in which words."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcore.backends.reference.backend import ReferenceBackend
from llmcore.backends.reference.model import ReferenceModel
from llmcore.errors import (
    CapabilityError,
    InsufficientMemoryError,
    ModelLoadError,
    OperationCancelledError,
    ParameterError,
)
from llmcore.model_file import check_model_file
from llmcore.values import ContextParams, ModelParams

from . import kit


def test_light() -> None:
    """To know the plugin costs neither NumPy nor gguf."""
    program = "import sys, llmcore.backends.reference; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert {"numpy", "gguf"} & set(done.stdout.split()) == set()


def test_progress(tmp_path: Path) -> None:
    """Shares grow from 0 to 1, and end there."""
    shares = list[float]()
    path = kit.llama(tmp_path / "model.gguf")
    ReferenceBackend().load_model(
        path, ModelParams(), lambda share: shares.append(share) or True
    )

    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert shares.count(1.0) == 1


@pytest.mark.parametrize("limit", [0.0, 0.5, 1.0])
def test_cancel(tmp_path: Path, limit: float) -> None:
    """A load can be cancelled at any share."""
    path = kit.llama(tmp_path / "model.gguf")
    with pytest.raises(OperationCancelledError, match="was cancelled at"):
        ReferenceBackend().load_model(path, ModelParams(), lambda s: s < limit)


@pytest.mark.parametrize(
    ("params", "why"),
    [({"gpu_layers": 1}, "CPU only"), ({"mlock": True}, "cannot pin weights")],
)
def test_refused_params(tmp_path: Path, params: dict[str, object], why: str) -> None:
    """What this backend cannot do is not left out in silence."""
    with pytest.raises(CapabilityError, match=why):
        kit.load(kit.llama(tmp_path / "model.gguf"), **params)


def test_check_tensors(tmp_path: Path) -> None:
    """On request, weights that are not finite are found."""
    bad = np.array([1.0, np.nan], np.float32)
    path = kit.llama(
        tmp_path / "model.gguf", change=lambda w: w.add_tensor("rope_freqs.weight", bad)
    )
    kit.load(path)

    with pytest.raises(ModelLoadError, match=r"'rope_freqs.weight' has NaN"):
        kit.load(path, check_tensors=True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda w: w.add_tensor("blk.0.extra", np.ones(2, np.float32)),
            r"the tensor 'blk.0.extra' \(and 0 more\) is not known",
        ),
        (
            lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE),
            "rope.scaling.type is 'longrope', which is not known",
        ),
        (
            lambda w: w.add_tensor("rope_freqs.weight", np.ones(3, np.float32)),
            r"'rope_freqs.weight' has shape \(3,\), not \(2,\)",
        ),
        (lambda w: w.add_string("llama.rope.freq_base", "x"), "of no use there"),
        (lambda w: w.add_float32("llama.rope.freq_base", np.nan), "must be finite"),
        (lambda w: w.add_uint16("split.count", 2), "join them with gguf-split"),
        (lambda w: w.add_key_length(6), "keys and values differ in length"),
    ],
)
def test_refused_files(tmp_path: Path, change: kit.Change, why: str) -> None:
    """A file that asks for what is not known here is refused, saying for what."""
    path = kit.llama(tmp_path / "model.gguf", change=change)
    with pytest.raises(ModelLoadError, match=why):
        kit.load(path)


def test_other_architecture(tmp_path: Path) -> None:
    """An architecture that is not known is refused with those that are."""
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "rwkv6")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(kit.TEXTS)
    writer.add_token_scores([0.0] * len(kit.TEXTS))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with pytest.raises(ModelLoadError, match="'rwkv6', only bert, gemma3, llama, mamb"):
        kit.load(tmp_path / "model.gguf")


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("damaged")
    return folder / "damaged.gguf", kit.llama(folder / "model.gguf").read_bytes()


@given(data=st.data())
def test_damage(whole: tuple[Path, bytes], data: st.DataObject) -> None:
    """Damage that core's look at the header misses is refused here or harmless."""
    path, file = whole
    damaged = bytearray(file)
    place = data.draw(st.integers(0, len(file) - 1))
    if data.draw(st.booleans()):
        del damaged[place:]
    else:
        damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)

    with suppress(ModelLoadError):
        check_model_file(path)
        with kit.opened(kit.load(path)) as context:
            assert len(kit.feed(context, kit.TEXT)) == len(kit.TEXTS)


# -- contexts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "error", "why"),
    [
        ({"kv_type_k": "q8_0"}, ParameterError, "use 'f32' or 'f16'"),
        ({"kv_type_v": "bf16"}, ParameterError, "kv_type_v='bf16'"),
        ({"flash_attention": True}, ParameterError, "has none: use 'auto'"),
    ],
)
def test_refused_contexts(
    llama: ReferenceModel, params: dict[str, object], error: type[Exception], why: str
) -> None:
    """A context that cannot be as asked is refused."""
    given: dict[str, object] = {"context_size": 32} | params
    with pytest.raises(error, match=why):
        llama.create_context(ContextParams(**given))


def test_no_memory(llama: ReferenceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context for which there is no memory says what to make smaller."""

    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(llama._network, "create_cache", fail)
    with pytest.raises(InsufficientMemoryError, match="context_size=32 and seq"):
        llama.create_context(ContextParams(context_size=32))


def test_given(llama: ReferenceModel) -> None:
    """What was left open is told."""
    asked = ContextParams(context_size=32, batch_size=16)
    context = llama.create_context(asked)
    params = context.params
    context.close()

    assert params.threads is not None
    assert (params.micro_batch_size, params.flash_attention) == (16, False)
