"""
No damaged file kills the process: the library itself dies of most of them.

``LLMCORE_FUZZ_COUNT=5000`` tries more of each kind.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ...unit import fuzz_model_file
from .damage import damaged
from .legacy_models import MAKERS

COUNT = int(os.environ.get("LLMCORE_FUZZ_COUNT", "60"))
SEED = int(os.environ.get("LLMCORE_FUZZ_SEED", "20260"))
BATCH = 100

CHILD = """
import resource, sys
from pathlib import Path
from llmcore.backends.ctransformers import INFO
from llmcore.backends.ctransformers.backend import CtransformersBackend
from llmcore.errors import LlmcoreError
from llmcore.model_file import check_model_file
from llmcore.spi import Batch
from llmcore.values import ContextParams, ModelParams
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
backend = CtransformersBackend()
def use(path):
    check_model_file(path, INFO.formats)
    model = backend.load_model(path, ModelParams(), lambda share: True)
    try:
        model.tokenize(b" hello </s> \\xff \\0 <|endoftext|>")
        model.piece(model.info.vocab_size - 1)
        size = min(model.info.trained_context, 64)
        context = model.create_context(ContextParams(context_size=size, threads=1))
        try:
            tokens = [n % model.info.vocab_size for n in range(size)]
            context.decode(Batch(tokens, range(size), [0] * size, [False] * size))
            context.remove(0, size - 1)
            context.decode(Batch([0], [size - 1], [0], [True]))
            assert len(context.logits(0)) == model.info.vocab_size
        finally:
            context.close()
    finally:
        model.close()
    return "decoded"
for line in sys.stdin:
    print("start", line.strip(), flush=True)
    try:
        print(use(Path(line.strip())), flush=True)
    except (LlmcoreError, ValueError) as error:
        print("refused:", error, flush=True)
"""


def files_of(kind: str, folder: Path) -> Iterator[Path]:
    """Write the damaged files of one kind."""
    if kind == "gguf":
        images = fuzz_model_file.mutations(
            fuzz_model_file.tiny_image(version=2), COUNT, SEED
        )
    else:
        images = damaged(MAKERS[kind](), COUNT, SEED)
    for number, raw in enumerate(images):
        path = folder / f"{number}.bin"
        path.write_bytes(raw)
        yield path


def load_in_child(files: list[Path]) -> str:
    """Use the files in a child process, which must live and print nothing else."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        input="".join(f"{file}\n" for file in files),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert child.returncode == 0, child.stdout[-2000:] + child.stderr[-2000:]
    assert child.stderr == ""
    return child.stdout


@pytest.mark.parametrize("kind", ["gguf", *MAKERS])
def test_survives(kind: str, tmp_path: Path) -> None:
    """A damaged file is refused in words, or works; and nothing else is printed."""
    refused = decoded = 0
    files = files_of(kind, tmp_path)
    while batch := list(itertools.islice(files, BATCH)):
        journal = load_in_child(batch)
        refused += journal.count("\nrefused")
        decoded += journal.count("\ndecoded")
        for file in batch:
            file.unlink()

    print(f"{kind}: {COUNT} damaged, {refused} refused, {decoded} decoded, 0 crashes")
    assert refused + decoded == COUNT
    assert refused
    assert decoded
