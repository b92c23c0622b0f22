"""
What passes the check of a model file must not be able to kill the process.

``LLMCORE_FUZZ_COUNT=20000`` tries more; damaged files that killed the engine are kept
in the test's temporary folder.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmcore.errors import ModelLoadError
from llmcore.model_file import check_model_file

from ..unit.fuzz_model_file import mutations, tiny_image

pytest.importorskip("llama_cpp", reason="needs the llama-cpp-python engine")

COUNT = int(os.environ.get("LLMCORE_FUZZ_COUNT", "200"))
SEED = int(os.environ.get("LLMCORE_FUZZ_SEED", "20260"))
BATCH = 100

ENGINE = """
import ctypes, sys, resource
import llama_cpp as engine
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
silent = engine.llama_log_callback(lambda *_: None)
engine.llama_log_set(silent, ctypes.c_void_p())
engine.llama_backend_init()
def try_file(path):
    model_params = engine.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = engine.llama_model_load_from_file(path.encode(), model_params)
    if not model:
        return "refused"
    params = engine.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 64, 8, 8
    params.n_threads = params.n_threads_batch = 1
    context = engine.llama_init_from_model(model, params)
    result = "loaded"
    if context:
        vocab = engine.llama_model_get_vocab(model)
        engine.llama_tokenize(vocab, b"a b", 3, (ctypes.c_int * 8)(), 8, False, False)
        if engine.llama_vocab_n_tokens(vocab) > 0:
            batch = engine.llama_batch_get_one((ctypes.c_int * 1)(0), 1)
            result = f"decoded {engine.llama_decode(context, batch)}"
        engine.llama_free(context)
    engine.llama_model_free(model)
    return result
for line in sys.stdin:
    print("start", line.strip(), flush=True)
    print(try_file(line.strip()), flush=True)
"""


def load_in_child(files: list[Path]) -> tuple[int, str]:
    """Load the files in one child process; its exit code and its journal."""
    child = subprocess.run(
        [sys.executable, "-c", ENGINE],
        input="".join(f"{file}\n" for file in files),
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )
    return child.returncode, child.stdout + child.stderr[-2000:]


def write_accepted(folder: Path) -> Iterator[Path]:
    """Write the damaged files that the check lets through, one after the other."""
    for number, raw in enumerate(mutations(tiny_image(), COUNT, SEED)):
        file = folder / f"{number}.gguf"
        file.write_bytes(raw)
        try:
            check_model_file(file)
        except ModelLoadError:
            file.unlink()
        else:
            yield file


def test_the_engine_survives(tmp_path: Path) -> None:
    """A damaged file that passes the check loads, or is refused, without a crash."""
    accepted = decoded = 0
    files = write_accepted(tmp_path)
    while batch := list(itertools.islice(files, BATCH)):
        code, journal = load_in_child(batch)
        assert code == 0, f"the engine died (exit code {code}): {journal[-3000:]}"
        accepted += len(batch)
        decoded += journal.count("decoded 0")
        for file in batch:
            file.unlink()
    print(f"{COUNT} damaged, {accepted} accepted, {decoded} decoded, 0 crashes")
    assert 0 < decoded < accepted < COUNT
