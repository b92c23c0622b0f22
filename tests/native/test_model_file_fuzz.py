"""
What passes the check of a model file must not be able to kill the process.

``LLMCORE_FUZZ_COUNT=20000`` tries more; damaged files that killed the engine are kept
in the test's temporary folder.
"""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmcore.errors import ModelLoadError
from llmcore.model_file import check_model_file

pytest.importorskip("llama_cpp", reason="needs the llama-cpp-python engine")
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from fuzz_model_file import mutations, tiny_image  # noqa: E402

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


def engine_survives(files: list[Path]) -> tuple[int, str]:
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


def accepted(folder: Path, counts: collections.Counter[str]) -> Iterator[Path]:
    """The damaged files that the check lets through."""
    for number, raw in enumerate(mutations(tiny_image(), COUNT, SEED)):
        file = folder / f"{number}.gguf"
        file.write_bytes(raw)
        try:
            check_model_file(file)
        except ModelLoadError:
            counts["rejected"] += 1
            file.unlink()
        else:
            counts["accepted"] += 1
            yield file
