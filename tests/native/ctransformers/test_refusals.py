"""What the engine cannot do is refused in words, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from llmcore.backends.ctransformers import native
from llmcore.errors import (
    CapabilityError,
    InsufficientMemoryError,
    ModelLoadError,
    OperationCancelledError,
    ParameterError,
)
from llmcore.spi import BackendModel
from llmcore.values import ContextParams, ModelParams
from llmcore_conformance import models

from ...unit.fuzz_model_file import Image, scalar, string, tiny_image
from . import legacy_models

if TYPE_CHECKING:
    from llmcore.backends.ctransformers.backend import CtransformersBackend

    from .conftest import Load, MakeRun


def tied(path: Path) -> Path:
    image = tiny_image()
    kept = tuple(t for t in image.tensors if t[0] != b"output.weight")
    path.write_bytes(bytes(evolve(image, tensors=kept)))
    return path


def setting(key: bytes, value: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        image: Image = tiny_image()
        path.write_bytes(bytes(evolve(image, values={**image.values, key: value})))
        return path

    return make


def content(raw: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(raw)
        return path

    return make


def folder(path: Path) -> Path:
    path.mkdir()
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "tied": (tied, "it has no output.weight"),
    "architecture": (models.tiny_recurrent, "of llama only, not of 'mamba'"),
    "byte pairs": (
        setting(b"tokenizer.ggml.model", string(b"gpt2")),
        "SentencePiece vocabularies only, not 'gpt2'",
    ),
    "scaled": (
        setting(b"llama.rope.scaling.type", string(b"yarn")),
        "does not know its rope scaling 'yarn'",
    ),
    "one head": (
        setting(b"llama.attention.head_count", scalar("u32", 1)),
        "heads",
    ),
    "other type": (
        setting(b"llama.context_length", scalar("u64", 64)),
        "llama.context_length must be of type u32, not u64",
    ),
    "one gpt head": (
        lambda path: legacy_models.gptj(heads=1).write(path),
        "needs 2 heads or more, not 1",
    ),
    "old quantisation": (
        lambda path: legacy_models.gptj(type=1002).write(path),
        "its quantisation is of version 1",
    ),
    "old version": (
        lambda path: legacy_models.llama(version=9).write(path),
        "a GGML file of an unknown version",
    ),
    "magic": (content(b"abcd" * 40), "neither a GGUF nor a GGML file"),
    "empty": (content(b""), "it cannot be read: cannot mmap an empty file"),
    "folder": (folder, "it cannot be read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_file(case: str, backend: CtransformersBackend, tmp_path: Path) -> None:
    """A file that the library cannot load is refused with the reason."""
    make, reason = REFUSED[case]
    path = make(tmp_path / "model")
    before = set(native._living)

    with pytest.raises(ModelLoadError) as caught:
        backend.load_model(path, ModelParams(), lambda share: True)

    assert reason in caught.value.reason
    assert native._living == before


def test_missing(backend: CtransformersBackend, tmp_path: Path) -> None:
    """So is a file that is not there, or none at all."""
    for path in (tmp_path / "missing", None):
        with pytest.raises(ModelLoadError):
            backend.load_model(path, ModelParams(), lambda share: True)


@pytest.mark.parametrize(
    ("fields", "error", "name"),
    [
        ({"mlock": True}, ParameterError, "mlock"),
        ({"check_tensors": True}, ParameterError, "check_tensors"),
        ({"gpu_layers": 1}, CapabilityError, "gpu_layers"),
    ],
)
def test_load_params(
    fields: dict[str, Any],
    error: type[Exception],
    name: str,
    backend: CtransformersBackend,
    tiny_model: Path,
) -> None:
    """A way to load that it has not is refused by name."""
    with pytest.raises(error, match=name):
        backend.load_model(tiny_model, ModelParams(**fields), lambda share: True)


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_cancelled(end: float, backend: CtransformersBackend, tiny_model: Path) -> None:
    """A cancelled load leaves nothing behind."""
    before = set(native._living)

    with pytest.raises(OperationCancelledError):
        backend.load_model(tiny_model, ModelParams(), lambda share: share < end)

    assert native._living == before


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"kv_type_k": "q8_0"}, "kv_type_k"),
        ({"kv_type_v": "bf16"}, "kv_type_v"),
        ({"flash_attention": True}, "flash_attention"),
    ],
)
def test_context_params(model: BackendModel, fields: dict[str, Any], name: str) -> None:
    """A kind of context that it has not is refused by name."""
    with pytest.raises(ParameterError, match=name):
        model.create_context(ContextParams(context_size=64, **fields))


@pytest.mark.parametrize("kind", ["gpt2", "gptj", "gptneox"])
def test_size_of_file(kind: str, paths: dict[str, Path], load: Load) -> None:
    """Where the file says how long a context is, none can be longer."""
    with pytest.raises(ParameterError, match="context_size must be at most 64"):
        load(paths[kind]).create_context(ContextParams(context_size=65))


@pytest.mark.parametrize("kind", ["gguf", "llama"])
def test_memory(kind: str, paths: dict[str, Path], load: Load, run: MakeRun) -> None:
    """More memory than there is ends no process, and the model can still be used."""
    model = load(paths[kind])

    with pytest.raises(InsufficientMemoryError, match="context_size=536870912"):
        model.create_context(ContextParams(context_size=2**29))
    with pytest.raises(ParameterError, match="is more than ctransformers can count"):
        model.create_context(ContextParams(context_size=2**31 - 1))

    assert run(model).feed([5]).size == model.info.vocab_size


def test_most(paths: dict[str, Path], load: Load, run: MakeRun) -> None:
    """More contexts than the library can count end no process."""
    model = load(paths["gguf"])

    with pytest.raises(InsufficientMemoryError, match="at most 28"):
        for _ in range(native.MOST_HANDLES):
            run(model, context_size=8)
