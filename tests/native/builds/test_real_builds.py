"""Real engines: tried before they are loaded, and never two of them in one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("llama_cpp") is None, reason="needs the llama-cpp extra"
)

TRY = """
import llmcore
from llmcore.errors import BackendUnavailableError
try:
    with llmcore.get_llama({arguments}) as llama:
        print(llama.gpu)
except BackendUnavailableError as error:
    print(error)
"""


def run(code: str, folder: Path, **environment: str) -> str:
    """What a fresh interpreter prints; its trials are remembered in a folder."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"XDG_CACHE_HOME": str(folder)} | environment,
    )
    return done.stdout.strip()


def test_tried_first(tmp_path: Path) -> None:
    """A trial of llama.cpp finds the processor, and loads nothing into this process."""
    trial = run(
        "import sys\nfrom llmcore.plugins import registry\n"
        "trial = registry().try_out('llama_cpp')\n"
        "assert trial.failure == '', trial\n"
        "assert 'llama_cpp' not in sys.modules\n"
        "print(*[device.kind for device in trial.devices], *trial.builds)",
        tmp_path,
    )

    assert "cpu" in trial
    assert "llama_cpp" in trial


def test_starts_when_it_was_tried(tmp_path: Path) -> None:
    """It then runs here, and the next process starts no child for it."""
    here = run(TRY.format(arguments="'llama_cpp', gpu=False"), tmp_path)
    never = (
        "import subprocess\n"
        "def refuse(*args, **kwargs): raise AssertionError('a child')\n"
        "subprocess.Popen = refuse\n"
    )
    again = run(never + TRY.format(arguments="'llama_cpp', gpu=False"), tmp_path)

    assert here == again == "False"


def test_a_second_instance(tmp_path: Path) -> None:
    """The library that is loaded already is no stranger to its own backend."""
    twice = TRY.format(arguments="'llama_cpp', gpu=False") * 2

    assert run(twice, tmp_path).split() == ["False", "False"]


@pytest.mark.parametrize("backend", ["'llama_cpp'", "'auto'"])
def test_no_such_gpu(tmp_path: Path, backend: str) -> None:
    """A GPU that the build does not have is refused: the CPU is no substitute."""
    answer = run(TRY.format(arguments=f"{backend}, gpu='metal'"), tmp_path)

    if sys.platform == "darwin":
        assert answer == "metal"
    else:
        assert "finds no metal device, only " in answer


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="needs Linux and a C compiler",
)
def test_beside_a_library(tmp_path: Path) -> None:
    """Beside another library that is called ggml it is refused, and never loaded."""
    library = tmp_path / "libggml.so"
    (tmp_path / "empty.c").write_text("int ggml_test(void) { return 1; }\n")
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", library, tmp_path / "empty.c"], check=True
    )
    load = f"import ctypes, sys; ctypes.CDLL({str(library)!r})\n"
    absent = "assert 'llama_cpp' not in sys.modules\n"

    answer = run(load + TRY.format(arguments="'llama_cpp'") + absent, tmp_path)

    assert "its ggml, of llama" in answer
    assert f"cannot be loaded beside that of {tmp_path}" in answer


@pytest.mark.skipif(find_spec("cyllama") is None, reason="needs cyllama")
@pytest.mark.skipif(sys.platform != "linux", reason="its module has another name")
def test_beside_another_engine(tmp_path: Path) -> None:
    """In a process that uses cyllama by itself, llama.cpp is refused."""
    answer = run(
        "import cyllama.llama.llama_cpp\n" + TRY.format(arguments="'llama_cpp'"),
        tmp_path,
    )

    assert "beside that of cyllama, which is in this process already" in answer
