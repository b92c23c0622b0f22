"""A model is loaded by the name of its source: fetched if need be, then opened."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

import llmcore
from llmcore.cli import app
from llmcore.errors import DisposedError, OperationCancelledError, SourceError
from llmcore.sources import resolve

from ..fuzz_model_file import tiny_image
from .hub_server import Hub

A = "hf:owner/models/a.gguf"


@pytest.fixture(autouse=True)
def _cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache as the usual one."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def test_loaded(hub: Hub) -> None:
    """An engine opens the model from the hub."""
    hub.files["a.gguf"] = bytes(tiny_image())
    with llmcore.get_llama("reference") as llama:
        model = llama.load_model(A)

        assert model.info.architecture == "llama"
        assert model.path == resolve(A, offline=True).path


def test_progress(hub: Hub) -> None:
    """The progress goes from 0 to 1 once, over the download and the load."""
    shares: list[float] = []
    with llmcore.get_llama("null") as llama:
        model = llama.load_model(A, progress=shares.append)

    assert model.disposed
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert 0.9 in shares


def test_progress_without_download(hub: Hub) -> None:
    """What is here already is all load."""
    resolve(A)
    shares: list[float] = []
    with llmcore.get_llama("null") as llama:
        model = llama.load_model(A, progress=shares.append)

    assert model.disposed
    assert shares == sorted(shares)
    assert any(share < 0.9 for share in shares)


def test_cancelled(hub: Hub) -> None:
    """A progress that returns False cancels the download; the next load goes on."""
    with llmcore.get_llama("null") as llama:
        with pytest.raises(OperationCancelledError):
            llama.load_model(A, progress=lambda share: share == 0)

        model = llama.load_model(A)
        assert model.path == resolve(A, offline=True).path


def test_progress_raises(hub: Hub) -> None:
    """What the progress raises ends the download and reaches the caller."""

    def broken(share: float) -> None:
        raise KeyError("my own")

    with (
        llmcore.get_llama("null") as llama,
        pytest.raises(KeyError, match="my own"),
    ):
        llama.load_model(A, progress=broken)


def test_disposed(hub: Hub) -> None:
    """Disposing the engine ends a download."""
    asked, disposing = threading.Event(), threading.Event()
    llama = llmcore.get_llama("null")

    def hold() -> None:
        asked.set()
        disposing.wait(20)

    hub.before_bytes = hold
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(llama.load_model, A)
        assert asked.wait(20)
        end = threading.Thread(target=llama.dispose)
        end.start()
        while not llama.disposed:
            end.join(0.001)
        disposing.set()
        end.join(20)

        with pytest.raises(DisposedError):
            load.result(20)


def test_refused(hub: Hub) -> None:
    """A model that cannot be fetched is one that cannot be loaded, and says why."""
    with (
        llmcore.get_llama("null") as llama,
        pytest.raises(llmcore.errors.ModelLoadError, match="has no file") as caught,
    ):
        llama.load_model("hf:owner/models/x.gguf")

    assert isinstance(caught.value, SourceError)


def test_run(hub: Hub) -> None:
    """``llmcore run`` takes the name of a source."""
    arguments = ["run", A, "hello", "--backend", "null", "--max-tokens", "3"]
    done = CliRunner().invoke(app, arguments)

    assert (done.exit_code, len(hub.paths())) == (0, 1)


def test_fetch(hub: Hub, tmp_path: Path) -> None:
    """``llmcore fetch`` prints where the model is, and nothing else."""
    for options in ([], ["--offline"]):
        done = CliRunner().invoke(app, ["fetch", A, *options])

        assert (done.exit_code, done.output) == (0, f"{resolve(A).path}\n")


def test_fetch_elsewhere(hub: Hub, tmp_path: Path) -> None:
    """``llmcore fetch`` takes another folder, and fetches again if told to."""
    arguments = ["fetch", A, "--cache-dir", str(tmp_path / "mine")]
    CliRunner().invoke(app, arguments)
    done = CliRunner().invoke(app, [*arguments, "--force"])

    assert str(tmp_path / "mine") in done.output
    assert len(hub.paths()) == 2


@pytest.mark.parametrize("command", ["inspect", "estimate"])
def test_look(hub: Hub, command: str) -> None:
    """What a model is and needs is said before it is fetched."""
    hub.files["a.gguf"] = bytes(tiny_image())
    done = CliRunner().invoke(app, [command, A, "--json"])

    assert (done.exit_code, done.output[:1]) == (0, "{")
    with pytest.raises(SourceError):
        resolve(A, offline=True)
