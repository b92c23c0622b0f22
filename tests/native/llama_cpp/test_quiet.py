"""The engine speaks to `logging` only, from the first call to the last."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmcore.backends.llama_cpp.backend import LlamaCppBackend
from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.errors import ModelLoadError
from llmcore.values import ModelParams

if TYPE_CHECKING:
    from conftest import MakeRun

LEFT_OPEN = """
import sys
from pathlib import Path
from llmcore.backends.llama_cpp.backend import LlamaCppBackend
from llmcore.spi import Batch
from llmcore.values import ContextParams, ModelParams

model = LlamaCppBackend().load_model(Path(sys.argv[1]), ModelParams(), lambda s: True)
context = model.create_context(ContextParams(context_size=256))
context.decode(Batch([5], [0], [0], [True]))
"""


def use(
    backend: LlamaCppBackend, model: LlamaCppModel, run: MakeRun, path: Path
) -> None:
    """A bit of everything that makes the engine speak."""
    run(model, kv_type_k="q8_0").feed([262] * 20)
    with pytest.raises(ModelLoadError):
        backend.load_model(path, ModelParams(), lambda share: True)


@pytest.fixture(name="garbage")
def _garbage(tmp_path: Path) -> Path:
    path = tmp_path / "garbage.gguf"
    path.write_bytes(b"GGUF" + b"\3\0\0\0" + b"\xff" * 64)
    return path


def test_silent(
    backend: LlamaCppBackend,
    llama: LlamaCppModel,
    run: MakeRun,
    garbage: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nothing is printed, not even when something fails."""
    use(backend, llama, run, garbage)

    assert capfd.readouterr() == ("", "")


def test_logged(
    backend: LlamaCppBackend,
    llama: LlamaCppModel,
    run: MakeRun,
    garbage: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Failures are logged as errors, the rest only for those who ask for detail."""
    with caplog.at_level(logging.DEBUG, "llmcore.llama_cpp"):
        use(backend, llama, run, garbage)

    levels = {record.levelno for record in caplog.records}
    assert {logging.DEBUG, logging.ERROR} <= levels
    assert logging.INFO not in levels
    assert not any(record.message.endswith("\n") for record in caplog.records)


def test_handler_fails(
    llama: LlamaCppModel, run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    """A log filter that raises harms nobody."""

    def fail(record: logging.LogRecord) -> bool:
        raise RuntimeError(record.msg)

    logger = logging.getLogger("llmcore.llama_cpp")
    logger.addFilter(fail)
    logger.setLevel(logging.DEBUG)
    try:
        run(llama)
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeFilter(fail)

    assert capfd.readouterr() == ("", "")


def test_left_open(paths: dict[str, Path]) -> None:
    """A program that ends with everything open ends well and without a word."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", LEFT_OPEN, paths["llama"]],
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
