"""Loading models: loading.md."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

import llmcore
from llmcore import Llama, Model
from llmcore.errors import DisposedError, ModelLoadError, OperationCancelledError
from llmcore_conformance import clause
from llmcore_conformance.checks import assert_becomes, in_thread, outcome
from llmcore_conformance.ledger import RecordingBackend, SeamLedger
from llmcore_conformance.models import tiny_llama
from llmcore_conformance.plugin import current_run
from llmcore_conformance.target import Target


@pytest.fixture
def reader(target: Target, ledger: SeamLedger) -> Iterator[Llama]:
    """The engine, declared to read model files if it reads none: core checks them."""
    info = target.describe()
    info = evolve(info, formats=info.formats or ("gguf",))
    with llmcore.get_llama(RecordingBackend(target.create(), info, ledger)) as llama:
        yield llama


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model file."""
    return tiny_llama(tmp_path_factory.mktemp("model") / "whole.gguf").read_bytes()


BAD_ANYWHERE = ("empty", "folder")
BAD_GGUF = ("text", "magic only", "cut in half")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is a whole file of another format is not known here."""
    if "bad" in metafunc.fixturenames:
        formats = current_run(metafunc.config).subject.info.formats
        own_format = bool(formats) and "gguf" not in formats
        metafunc.parametrize("bad", BAD_ANYWHERE + (() if own_format else BAD_GGUF))


@pytest.fixture
def bad_path(bad: str, tmp_path: Path, whole_file: bytes) -> Path:
    """Something that is not a whole model file."""
    path = tmp_path / "bad.gguf"
    if bad == "folder":
        path.mkdir()
        return path
    path.write_bytes(
        {
            "empty": b"",
            "text": b"this is no model\n" * 100,
            "magic only": b"GGUF" + b"\xff" * 60,
            "cut in half": whole_file[: len(whole_file) // 2],
        }[bad]
    )
    return path


def assert_refused(llama: Llama, path: Path) -> None:
    """Loading raises a ModelLoadError that names the path."""
    __tracebackhide__ = True
    with pytest.raises(ModelLoadError) as caught:
        llama.load_model(path)
    error = caught.value
    assert str(path) in str(error), f"the message does not name {path}: {error}"
    assert error.path == str(path)


@clause("load.missing-file")
def test_a_missing_file_is_named(reader: Llama, tmp_path: Path) -> None:
    """The error's message and its ``path`` name the file that is not there."""
    assert_refused(reader, tmp_path / "no such model.gguf")


@clause("load.bad-file")
def test_a_bad_file_is_named(reader: Llama, bad_path: Path) -> None:
    """What is no whole model file is refused, and nothing crashes."""
    assert_refused(reader, bad_path)


@clause("load.fail-clean")
def test_a_failed_load_leaves_nothing(
    target: Target, llama: Llama, ledger: SeamLedger
) -> None:
    """After an error of the engine the tree is as before, and loading works."""
    before = [info.label for info in llama.resources()]
    ledger.fail("load")
    with pytest.raises(ModelLoadError):
        target.load(llama)
    after = [info.label for info in llama.resources()]
    assert after == before, f"left behind: {set(after) - set(before)}"
    assert "model" not in ledger.live
    with target.load(llama) as model:
        assert model.info.vocab_size > 0


@clause("load.independent-instances")
def test_another_instance_lives_on(target: Target, llama: Llama) -> None:
    """With one of two instances disposed, the other loads and generates."""
    with target.open() as other, target.load(other):
        pass
    with target.load(llama) as model:
        assert model.tokenize("a"), "the other instance was affected"


@clause("load.independent-models")
def test_another_model_lives_on(
    target: Target, llama: Llama, model: Model, prompt_tokens: list[int]
) -> None:
    """With one of two models from one source disposed, the other answers the same."""

    def generate() -> tuple[int, ...]:
        with model.create_context(context_size=64, threads=1) as context:
            sequence = context.get_sequence()
            return sequence.generate(prompt_tokens, max_tokens=4).result.tokens

    before = generate()
    target.load(llama).dispose()
    assert generate() == before


@clause("load.progress")
def test_progress_rises_from_nothing_to_all(target: Target, llama: Llama) -> None:
    """The callback hears 0 or more first, never less than before, and 1 last."""
    heard: list[tuple[float, threading.Thread]] = []

    def listen(share: float) -> None:
        heard.append((share, threading.current_thread()))

    llama.load_model(target.model_path, progress=listen).dispose()
    shares = [share for share, _ in heard]
    assert shares, "the callback was never called"
    assert shares == sorted(shares), f"it fell: {shares}"
    assert shares[0] >= 0
    assert shares[-1] == 1
    assert {thread for _, thread in heard} == {threading.current_thread()}


@clause("load.cancel")
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_load_can_be_cancelled_at_any_share(
    target: Target, llama: Llama, ledger: SeamLedger, share: float
) -> None:
    """Once the callback says False, the load raises and leaves nothing."""
    try:
        llama.load_model(target.model_path, progress=lambda now: now < share)
    except OperationCancelledError:
        assert "model" not in ledger.live
        assert [info.kind for info in llama.resources()] == ["llama"]
    else:
        pytest.fail(f"the model was loaded although it was cancelled at {share}")


@clause("load.progress-error")
def test_an_error_in_the_callback_comes_out(target: Target, llama: Llama) -> None:
    """The very exception that the callback raised reaches the caller."""
    error = KeyboardInterrupt("pressed during a load")

    def listen(share: float) -> None:
        raise error

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        llama.load_model(target.model_path, progress=listen)
    assert caught.value is error, f"it became {caught.value!r}"


@clause("load.disposed-during")
@pytest.mark.parametrize("moment", ["load", "loaded"])
def test_a_load_on_a_disposed_instance_ends(
    target: Target, llama: Llama, ledger: SeamLedger, patience: float, moment: str
) -> None:
    """An instance disposed before or after the engine loaded gives and keeps none."""
    ledger.during(moment, llama.dispose)
    try:
        outcome(in_thread(lambda: target.load(llama)), patience, "the load")
    except DisposedError:
        what = "an engine whose load was cut off was not freed"
        assert_becomes(lambda: not ledger.live, patience, what)
    else:
        pytest.fail("the load gave a model on a disposed instance")
