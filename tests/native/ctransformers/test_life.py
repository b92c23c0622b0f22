"""Native memory has one owner, is freed once, and nothing is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmcore.backends.ctransformers import native
from llmcore.values import ContextParams, ModelParams

if TYPE_CHECKING:
    from llmcore.backends.ctransformers.backend import CtransformersBackend

LEFT_OPEN = """
import sys
from pathlib import Path
from llmcore.backends.ctransformers.backend import CtransformersBackend
from llmcore.spi import Batch
from llmcore.values import ContextParams, ModelParams

for path in sys.argv[1:]:
    backend = CtransformersBackend()
    model = backend.load_model(Path(path), ModelParams(), lambda share: True)
    model.tokenize(b"hello \\0 <|endoftext|> \\xff")
    context = model.create_context(ContextParams(context_size=64))
    context.decode(Batch([5], [0], [0], [True]))
assert "ctransformers" not in sys.modules
"""


def test_freed(
    kind: str, paths: dict[str, Path], backend: CtransformersBackend
) -> None:
    """What was loaded is freed at the end, contexts of any number included."""
    before = set(native._living)
    model = backend.load_model(paths[kind], ModelParams(), lambda share: True)
    contexts = [model.create_context(ContextParams(context_size=64)) for _ in range(3)]

    for context in contexts:
        context.close()
    model.close()

    assert native._living == before


@pytest.mark.parametrize("kind", ["gpt2", "gptj", "gptneox"])
def test_borrowed(
    kind: str, paths: dict[str, Path], backend: CtransformersBackend
) -> None:
    """A model that cannot be mapped is in memory once, for one context at a time."""
    model = backend.load_model(paths[kind], ModelParams(), lambda share: True)
    before = set(native._living)

    for _ in range(2):
        context = model.create_context(ContextParams(context_size=64))
        assert native._living == before
        context.close()

    model.close()


@pytest.mark.parametrize("kind", ["gguf", "llama"])
def test_mapped(
    kind: str, paths: dict[str, Path], backend: CtransformersBackend
) -> None:
    """Weights that are mapped are in memory once; else each context has its own."""
    used = {}
    for mmap in (True, False):
        params = ModelParams(mmap=mmap)
        model = backend.load_model(paths[kind], params, lambda share: True)
        context = model.create_context(ContextParams(context_size=64))
        used[mmap] = context.memory().compute
        context.close()
        model.close()

    assert used[False] - used[True] == model.info.size_bytes


def test_quiet(paths: dict[str, Path]) -> None:
    """A program that ends with everything open ends well and without a word."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", LEFT_OPEN, *paths.values()],
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
