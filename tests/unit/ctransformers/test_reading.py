"""What the ctransformers backend finds in a file, without its engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from llmcore.backends.ctransformers.limits import (
    BUFFER,
    cache_bytes,
    compute_bytes,
    needed_bytes,
    tokens_at_once,
)
from llmcore.backends.ctransformers.model_file import ModelFile
from llmcore.backends.ctransformers.reading import read_model_file
from llmcore.backends.ctransformers.tokenizers import GreedyTokenizer
from llmcore.errors import ModelLoadError

from ...native.ctransformers import legacy_models
from ...native.ctransformers.legacy_models import (
    EMBEDDING,
    GPT_TOKENS,
    LAYERS,
    MAKERS,
    POSITIONS,
    Image,
)


def read(image: Image, tmp_path: Path, name: str = "model.bin") -> ModelFile:
    return read_model_file(image.write(tmp_path / name))


def reason(image: Image, tmp_path: Path, name: str = "model.bin") -> str:
    with pytest.raises(ModelLoadError) as caught:
        read(image, tmp_path, name)
    return caught.value.reason


@pytest.mark.parametrize("name", MAKERS)
def test_type(name: str, tmp_path: Path) -> None:
    """The model type is found out, and its sizes with it."""
    image = MAKERS[name]()

    info = read(image, tmp_path).info

    assert info.architecture == name
    assert info.vocab_size == len(image.tokens)
    assert (info.layers, info.embedding_size) == (LAYERS, EMBEDDING)
    assert info.parameters == sum(values.size for values in image.tensors.values())
    assert info.size_bytes == 4 * info.parameters


@pytest.mark.parametrize("name", MAKERS)
def test_incomplete(name: str, tmp_path: Path) -> None:
    """A file that lacks any one of its tensors is refused, naming it."""
    image = MAKERS[name]()
    for lost in image.tensors.keys() - {"model/lm_head"}:
        kept = {n: values for n, values in image.tensors.items() if n != lost}

        assert repr(lost) in reason(evolve(image, tensors=kept), tmp_path)


def test_shared_head(tmp_path: Path) -> None:
    """A GPT-2 may use its embedding for the output too."""
    image = legacy_models.gpt2()
    tensors = dict(image.tensors)
    del tensors["model/lm_head"]

    assert read(evolve(image, tensors=tensors), tmp_path).kind == "starcoder"


@pytest.mark.parametrize("name", MAKERS)
def test_cut(name: str, tmp_path: Path) -> None:
    """A file that was cut off anywhere is refused."""
    path, raw = tmp_path / "cut.bin", bytes(MAKERS[name]())
    for length in range(0, len(raw), len(raw) // 50):
        path.write_bytes(raw[:length])

        with pytest.raises(ModelLoadError):
            read_model_file(path)


@pytest.mark.parametrize(
    ("version", "kind", "refused"),
    [(1, 0, False), (1, 2, True), (2, 2, True), (2, 8, False), (3, 2, False)],
)
def test_old_types(version: int, kind: int, refused: bool, tmp_path: Path) -> None:
    """Quantised types that meant something else then are refused."""
    image = legacy_models.llama(version=version, kind=kind)

    if refused:
        assert "of an old version" in reason(image, tmp_path)
    else:
        assert read(image, tmp_path).info.architecture == "llama"


def test_bytes_missing(tmp_path: Path) -> None:
    """A Llama that cannot write every byte is refused: tokenizing would be fatal."""
    image = legacy_models.llama()
    tokens = [b"??" if token == b"\x07" else token for token in image.tokens]

    assert "it lacks 7" in reason(evolve(image, tokens=tokens), tmp_path)


def test_grouped(tmp_path: Path) -> None:
    """A name with "70b" is believed, as the library does, so it must fit."""
    image = legacy_models.llama()

    assert "in groups of 8" in reason(image, tmp_path, "llama-70b.bin")
    assert read(image, tmp_path, "llama-170b.bin").info.kv_heads == 4


def test_control(tmp_path: Path) -> None:
    """Control tokens are known by their looks, and have no text."""
    image = legacy_models.gptneox()
    marks = [b"<|end|>", b"<fim-pad>", b"### End", b"<|>"]
    tokens = [*marks, *image.tokens[4:]]

    file = read(evolve(image, tokens=tokens), tmp_path)

    end = len(GPT_TOKENS) - 1
    expected = {"<|end|>": 0, "<fim-pad>": 1, "### End": 2, "<|endoftext|>": end}
    assert file.info.special_tokens == expected
    assert file.info.end_tokens == {0, 2, end}
    assert [file.vocabulary.pieces[n] for n in expected.values()] == [b""] * 4
    assert file.vocabulary.pieces[3] == b"<|>"


def test_left_out(tmp_path: Path) -> None:
    """A byte that no token of a GPT begins with is left out."""
    image = legacy_models.gptj()
    tokens = [b"-" if token == b"z" else token for token in image.tokens]
    file = read(evolve(image, tokens=tokens), tmp_path)

    numbers = GreedyTokenizer(file.vocabulary)(b"az the")

    assert [file.vocabulary.pieces[n] for n in numbers] == [b"a", b" the"]


def test_cache_size(tmp_path: Path) -> None:
    """The size of a cache is that of the file, or the one that is asked for."""
    fixed, free = (read(MAKERS[n](), tmp_path) for n in ("gptj", "llama"))
    per_token = 2 * LAYERS * EMBEDDING * 2

    assert cache_bytes(fixed, 8) == POSITIONS * per_token
    assert cache_bytes(free, 8) == 8 * per_token


def test_working_memory(tmp_path: Path) -> None:
    """As many tokens are evaluated at once as fit into the buffers, at least one."""
    for name in ("gptj", "gpt2", "gptneox"):
        file = read(MAKERS[name](), tmp_path)
        for size in (64, 2**12, 2**16):
            most = tokens_at_once(file, size)

            assert most >= 1
            if not file.scratch:
                assert compute_bytes(file, size, most) <= BUFFER


def test_too_long(tmp_path: Path) -> None:
    """Where not even one token fits, none is evaluated."""
    file = read(legacy_models.gpt2(), tmp_path)

    assert tokens_at_once(file, 2**21) == 0


def test_mapped(tmp_path: Path) -> None:
    """Only weights that can be mapped need no memory of their own."""
    fixed, free = (read(MAKERS[n](), tmp_path) for n in ("gptj", "llama"))

    for file, saved in ((fixed, 0), (free, free.info.size_bytes)):
        read_in = needed_bytes(file, 64, mapped=False)
        assert read_in - needed_bytes(file, 64, mapped=True) == saved
