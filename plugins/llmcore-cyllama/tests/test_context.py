"""What only this binding could get wrong; the conformance suite proves the rest."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from llmcore.errors import (
    BackendError,
    DecodeAbortedError,
    DecodeError,
    ModelLoadError,
    OperationCancelledError,
    StateError,
)
from llmcore.spi import Batch
from llmcore.values import ContextParams, ModelParams, evolve
from llmcore_cyllama import BUILDS, INFO, installed_build
from llmcore_cyllama.backend import CyllamaBackend
from llmcore_cyllama.model import CyllamaModel

if TYPE_CHECKING:
    from conftest import Create, Feed

TEXT = list(range(262, 302))


class TestBatch:
    def test_mixed(self, llama: CyllamaModel, create: Create, feed: Feed) -> None:
        """Rows keep their numbers though the engine gets them in another order."""
        context = create(llama, sequences=2)
        tokens, sequences = [265, 275, 266, 276], [1, 0, 1, 0]
        context.decode(
            Batch(tokens, [0, 0, 1, 1], sequences, [False, True, True, True])
        )

        for row, prompt in ((1, [275]), (2, [265, 266]), (3, [275, 276])):
            expected = feed(create(llama), prompt)
            np.testing.assert_allclose(context.logits(row), expected, atol=0.05)

    def test_refused(self, llama: CyllamaModel, create: Create, feed: Feed) -> None:
        """A batch that does not fit is refused with the cache as it was."""
        context = create(llama)
        feed(context, TEXT)
        size = context.params.context_size
        count = int(size) - len(TEXT) + 1
        positions = range(len(TEXT), len(TEXT) + count)

        with pytest.raises(DecodeError, match="KV slot"):
            context.decode(Batch([5] * count, positions, [0] * count, [True] * count))
        assert context.bounds(0) == (0, len(TEXT) - 1)


class TestAbort:
    def test_before(self, llama: CyllamaModel, create: Create, feed: Feed) -> None:
        """A context told to stop evaluates nothing until it is told to go on."""
        context = create(llama)
        context.abort(True)
        with pytest.raises(DecodeAbortedError):
            feed(context, TEXT)
        assert context.bounds(0) == (-1, -1)

        context.abort(False)
        feed(context, TEXT)
        assert context.bounds(0) == (0, len(TEXT) - 1)

    def test_shift(self, llama: CyllamaModel, create: Create, feed: Feed) -> None:
        """What a shift makes the engine do is not stopped half-way."""
        context = create(llama)
        feed(context, TEXT)
        context.abort(True)
        context.remove(0, 5, 10)
        context.shift(0, 10, len(TEXT), -5)

        assert context.bounds(0) == (0, len(TEXT) - 6)
        with pytest.raises(DecodeAbortedError):  # and the wish to stop still holds
            feed(context, [5])

    def test_after_close(self, llama: CyllamaModel, create: Create, feed: Feed) -> None:
        """A late wish to stop finds a closed context and does its neighbour no harm."""
        other = create(llama)
        context = llama.create_context(ContextParams(context_size=256))
        context.close()

        context.abort(True)

        feed(other, TEXT)
        assert other.bounds(0) == (0, len(TEXT) - 1)


class TestEnd:
    def test_out_of_reach(self, llama: CyllamaModel) -> None:
        """After `close` there is no native object left to crash on."""
        context = llama.create_context(ContextParams(context_size=256))
        context.close()

        with pytest.raises(AttributeError):
            context.bounds(0)
        with pytest.raises(AttributeError):
            context.decode(Batch([5], [0], [0], [True]))

    def test_left_open(self, paths: dict[str, Path]) -> None:
        """A process that ends with all of it open ends in silence."""
        program = (
            "import sys\n"
            "from pathlib import Path\n"
            "from llmcore_cyllama.backend import CyllamaBackend\n"
            "from llmcore.values import ContextParams, ModelParams\n"
            "backend, path = CyllamaBackend(), Path(sys.argv[1])\n"
            "model = backend.load_model(path, ModelParams(), lambda share: True)\n"
            "context = model.create_context(ContextParams(context_size=256))\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, str(paths["llama"])],
            capture_output=True,
            check=False,
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


class TestState:
    def test_other_build(self, llama: CyllamaModel, create: Create, feed: Feed) -> None:
        """Bytes of another build of the engine are refused: it may read them wrong."""
        context = create(llama)
        feed(context, TEXT)
        state = context.save_state(0)
        context._origin = evolve(context._origin, format=context._origin.format ^ 1)

        with pytest.raises(StateError, match="another version"):
            context.load_state(0, state)

    def test_copy_then_save(
        self, llama: CyllamaModel, create: Create, feed: Feed
    ) -> None:
        """The bytes of a copy are whole, though the engine puts copies off."""
        context = create(llama, sequences=2)
        feed(context, TEXT)
        context.copy(0, 1)
        state = context.save_state(1)
        expected = feed(context, [300], 0)
        context.clear()
        context.load_state(1, state)

        np.testing.assert_allclose(feed(context, [300], 1), expected, atol=0.05)


class TestLoading:
    @pytest.mark.parametrize("damage", ["garbage", "cut", "missing"])
    def test_damaged(
        self,
        backend: CyllamaBackend,
        paths: dict[str, Path],
        tmp_path: Path,
        damage: str,
    ) -> None:
        """A file that cannot be read is an error which names it and says why."""
        path = tmp_path / "damaged.gguf"
        if damage == "garbage":
            path.write_bytes(b"GGUF\3\0\0\0" + b"\xff" * 64)
        elif damage == "cut":
            path.write_bytes(paths["llama"].read_bytes()[:30_000])

        with pytest.raises(ModelLoadError, match=r"damaged\.gguf'?: \S"):
            backend.load_model(path, ModelParams(), lambda share: True)

    def test_text_not_utf8(
        self, backend: CyllamaBackend, paths: dict[str, Path], tmp_path: Path
    ) -> None:
        """Metadata that cyllama cannot decode is an error that says so."""
        path = tmp_path / "latin1.gguf"
        content = paths["llama"].read_bytes()
        path.write_bytes(content.replace(b"{% for message", b"{% for messag\xe9", 1))

        with pytest.raises(ModelLoadError, match="not UTF-8"):
            backend.load_model(path, ModelParams(), lambda share: True)

    @pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
    def test_name_not_utf8(
        self, backend: CyllamaBackend, paths: dict[str, Path], tmp_path: Path
    ) -> None:
        """A file name that cyllama cannot open is an error that says what to do."""
        path = tmp_path / "latin\udce9.gguf"
        path.write_bytes(paths["llama"].read_bytes())

        with pytest.raises(ModelLoadError, match="rename it"):
            backend.load_model(path, ModelParams(), lambda share: True)

    def test_cancelled(self, backend: CyllamaBackend, paths: dict[str, Path]) -> None:
        """A load that is told to stop stops, and says that it was cancelled."""
        with pytest.raises(OperationCancelledError):
            backend.load_model(paths["llama"], ModelParams(), lambda share: share < 0.5)

    def test_listener_fails(
        self, backend: CyllamaBackend, paths: dict[str, Path]
    ) -> None:
        """What a listener raises comes out again, through all of the native code."""

        def listen(share: float) -> bool:
            raise BackendError("enough")

        with pytest.raises(BackendError, match="enough"):
            backend.load_model(paths["llama"], ModelParams(), listen)

    def test_without_gpu(
        self,
        backend: CyllamaBackend,
        paths: dict[str, Path],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """With no layer on a GPU nothing of a model or context is there at all."""
        gpus = [
            d.name for d in backend.devices() if d.kind not in ("cpu", "accelerator")
        ]
        if not gpus:
            pytest.skip("this build has no GPU")
        with caplog.at_level(logging.DEBUG, "llmcore.llama_cpp"):
            params = ModelParams(gpu_layers=0)
            model = backend.load_model(paths["llama"], params, lambda share: True)
            model.create_context(ContextParams(context_size=256)).close()
            model.close()

        buffers = [text for text in caplog.messages if "buffer size" in text]
        assert buffers
        assert not [text for text in buffers if any(gpu in text for gpu in gpus)]


class TestVocabulary:
    @pytest.mark.parametrize("token", [-1, 10**6])
    def test_no_such_token(self, llama: CyllamaModel, token: int) -> None:
        """A token outside the vocabulary is an error, not the end of the process."""
        with pytest.raises(ValueError, match="token must be between"):
            llama.piece(token)

    def test_any_bytes(self, llama: CyllamaModel) -> None:
        """Bytes that are no text are tokenized as the character for such."""
        assert llama.tokenize(b"\xff") == llama.tokenize("\ufffd".encode())

    def test_threads(self, llama: CyllamaModel) -> None:
        """Several threads may tokenize at once."""
        expected, found = llama.tokenize(b"once upon a time" * 50), list[list[int]]()
        threads = [
            threading.Thread(
                target=lambda: found.append(llama.tokenize(b"once upon a time" * 50))
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [expected] * 8 == found


class TestBuild:
    def test_requires(self) -> None:
        """The plugin asks for the build that is here, whichever it is."""
        assert installed_build() in BUILDS
        assert INFO.requires == (f"{installed_build()}>=0.7,<0.8",)

    def test_told(self, llama: CyllamaModel) -> None:
        """A model says by which build of which engine it was loaded."""
        assert llama.info.build.startswith(f"{installed_build()} 0.7")
        assert "llama.cpp" in llama.info.build

    def test_devices(self, backend: CyllamaBackend) -> None:
        """The CPU is among the devices, each has memory, and a GPU a way to it."""
        devices = backend.devices()

        assert "cpu" in {device.kind for device in devices}
        assert all(device.api for device in devices if "gpu" in device.kind)
        assert all(0 < device.free <= device.total for device in devices)
