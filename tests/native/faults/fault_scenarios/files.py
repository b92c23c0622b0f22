"""
Files that are no models.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import llmcore
from fault_scenarios.kit import answer, error_of, make_context, model_path
from fault_scenarios.table import scenario


def _load(path: Path) -> None:
    """Print the refusal; afterwards the same engine must load and answer."""
    with llmcore.get_llama("llama_cpp") as llama:
        print(error_of(lambda: llama.load_model(path)))
        assert len(llama.resources()) == 1
        context = llama.load_model(model_path()).create_context(context_size=64)
        assert answer(context.get_sequence(), max_tokens=2) is not None


def _file(content: bytes) -> Path:
    path = Path(tempfile.mkdtemp()) / "model.gguf"
    path.write_bytes(content)
    return path


def _good() -> bytes:
    return Path(model_path()).read_bytes()


def _bad(name: str, outcome: str, make: Callable[[], bytes]) -> None:
    def run() -> None:
        _load(_file(make()))

    run.__name__ = name
    run.__module__ = __name__
    scenario(rf"ModelLoadError: cannot load model '.*model.gguf': {outcome}")(run)


def _header(version: int, tensors: int, pairs: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + rest


HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
_bad("empty", "the file is empty", lambda: b"")
_bad("text", "a text file", lambda: b"This is only text, which is no model.\n" * 9)
_bad("web_page", "this is a web page", lambda: HTML)
_bad("wrong_magic", "not a GGUF file", lambda: b"\x00\x01\xfe\xff" + _good()[4:])
_bad("magic_only", "", lambda: b"GGUF")
_bad("garbage_with_magic", "", lambda: b"GGUF" + bytes(range(256)) * 64)
_bad("header_cut", "", lambda: _good()[:200])
_bad("data_cut", "", lambda: _good()[:-5000])
_bad("absurd_tensor_count", "", lambda: _header(3, 2**62, 0, bytes(64)))
_bad("absurd_pair_count", "", lambda: _header(3, 0, 2**62, bytes(64)))
_bad("absurd_length", "", lambda: _header(3, 1, 1, struct.pack("<Q", 2**63)))
_bad("version_of_the_future", "", lambda: _header(4_000_000, 1, 1, bytes(64)))


@scenario("ModelLoadError: .*there is no such file")
def missing() -> None:
    """A path to nothing."""
    _load(Path(tempfile.mkdtemp()) / "missing.gguf")


@scenario("ModelLoadError: .*a directory")
def directory() -> None:
    """A path to a folder."""
    _load(Path(tempfile.mkdtemp()))


@scenario("(?:refused|loaded) [0-9]+ .*in one process")
def cut_at_every_place() -> None:
    """The same file cut at 60 places; all are refused by one engine, one by one."""
    good, refused = _good(), 0
    path = _file(b"")
    with llmcore.get_llama("llama_cpp") as llama:
        for part in range(60):
            path.write_bytes(good[: len(good) * part // 60])
            message = error_of(lambda: llama.load_model(path))
            assert message.startswith("ModelLoadError: "), message
            refused += 1
    assert answer(make_context().get_sequence()) is not None
    print(f"refused {refused} times, in one process")
