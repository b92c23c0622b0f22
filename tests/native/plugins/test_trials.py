"""A backend is started in a child process before this one takes it in."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llmcore.errors import BackendUnavailableError, ParameterError
from llmcore.plugins import BackendRequest, Registry, Trial
from llmcore.plugins.trial import run_trial

from ...unit.plugins.kit import ENGINE, Site, engine_code, plugin_code

MINE = BackendRequest(backend="mine")
Cautious = Callable[[], Registry]

NOTE = (
    "import os; os.write(os.open({!r}, os.O_APPEND | os.O_CREAT | os.O_WRONLY), b'x')"
)
"""Says in a file that an engine was started."""

posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def try_out(site: Site, code: str, seconds: float = 20) -> Trial:
    """The trial of an engine with this code."""
    site.write("engine", code)
    return run_trial("engine:Engine", seconds)


# -- one trial ------------------------------------------------------------------------


def test_works(site: Site) -> None:
    """A trial of an engine that works tells its devices, and loads nothing here."""
    trial = try_out(site, engine_code())

    assert trial.failure == ""
    assert [device.name for device in trial.devices] == ["CPU"]
    assert "engine" not in sys.modules


LETHAL = {
    "null pointer": ("import ctypes; ctypes.string_at(0)", "crashed with SIGSEGV"),
    "abort": ("import os; os.abort()", "crashed with SIGABRT"),
    "exit": ("import os; os._exit(3)", "ended the process with exit code 3"),
    "clean exit": ("import os; os._exit(0)", "ended the process with exit code 0"),
}


@posix
@pytest.mark.parametrize(("start", "words"), LETHAL.values(), ids=LETHAL)
def test_lethal(site: Site, start: str, words: str) -> None:
    """An engine that takes its process down is refused, with how it ended."""
    trial = try_out(site, engine_code(start))

    assert trial.lethal
    assert words in trial.failure


@posix
def test_last_words(site: Site) -> None:
    """What an engine said before it crashed is told, with the place in its code."""
    said = "import os, sys; sys.stderr.write('GGML_ASSERT(x) failed\\n'); os.abort()"
    trial = try_out(site, engine_code(said))

    assert "its last words were 'GGML_ASSERT(x) failed'" in trial.failure
    assert "engine.py" in trial.failure


def test_hang(site: Site) -> None:
    """An engine that never comes back is ended, and it is said where it was."""
    trial = try_out(site, "import threading\nthreading.Event().wait()", seconds=1)

    assert trial.lethal
    assert "no answer within 1 s" in trial.failure
    assert "threading.py" in trial.failure


@posix
def test_hang_with_a_child(site: Site, tmp_path: Path) -> None:
    """A process that an engine leaves behind does not make the trial wait."""
    sleeper = "import time; time.sleep(60)"
    start = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {sleeper!r}])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))"
    )
    trial = try_out(site, engine_code(start))
    os.kill(int((tmp_path / "pid").read_text()), 9)

    assert trial.failure == ""


def test_endless_output(site: Site) -> None:
    """An engine that never stops writing is ended."""
    trial = try_out(site, "import os\nwhile True: os.write(2, b'x' * 65536)")

    assert "wrote more than 16 MiB" in trial.failure


def test_noise(site: Site) -> None:
    """What an engine writes to standard output is told, and does no harm."""
    start = "print('hello', flush=True); import os; os.write(1, b'{}\\n'); os.close(1)"
    trial = try_out(site, engine_code(start))

    assert trial.failure == ""
    assert "hello" in trial.noise


BAD = {
    "raises": ("raise OSError('driver')", "OSError: driver"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "no engine": ("Engine = 3", "TypeError"),
    "no backend": ("def Engine(): return 3", "not a llmcore.spi.Backend: int"),
    "devices raise": (engine_code(devices="gpus = 1 / 0"), "ZeroDivisionError"),
    "no list": (engine_code(devices="gpus = 3"), "not iterable"),
    "not devices": (engine_code(devices="gpus = ['cuda']"), "valid Device objects"),
    "odd devices": (
        engine_code(devices="gpus = [Device(name=[], kind={})]"),
        "valid Device objects",
    ),
    "close raises": (f"{ENGINE}\nEngine.close = lambda self: 1 / 0", "ZeroDivision"),
}


@pytest.mark.parametrize(("code", "words"), BAD.values(), ids=BAD)
def test_bad(site: Site, code: str, words: str) -> None:
    """An engine that raises, or is not what it should be, says so; it is not lethal."""
    trial = try_out(site, code)

    assert words in trial.failure
    assert not trial.lethal


def test_no_python(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no child can be started nothing is tried, and that is said."""
    monkeypatch.setattr(sys, "executable", "")
    assert "no Python interpreter" in run_trial("engine:Engine", 1).untried

    monkeypatch.setattr(sys, "executable", str(site.root / "nothing"))
    assert "no child process can be started" in run_trial("engine:Engine", 1).untried


# -- asking for a backend -------------------------------------------------------------


@posix
def test_refused(site: Site, cautious: Cautious) -> None:
    """A backend that crashes is refused by name, and this process never loads it."""
    site.write("engine", "import os; os.abort()")
    site.install()

    with pytest.raises(BackendUnavailableError, match=r"SIGABRT.*fix llmcore-mine"):
        cautious().select(MINE)

    assert "engine" not in sys.modules


@posix
def test_not_chosen(site: Site, cautious: Cautious) -> None:
    """A backend that crashes is passed over for one that works, and it is said why."""
    site.write("engine", "import os; os.abort()")
    site.write("good", engine_code())
    site.install()
    site.install("llmcore-other", plugin_code("other", "good:Engine"), plugin="other")
    registry = cautious()

    assert registry.select(BackendRequest()).name == "other"
    verdicts = {verdict.name: verdict for verdict in registry.explain(BackendRequest())}
    assert "SIGABRT" in verdicts["mine"].reason
    assert "cpu 'CPU'" in str(verdicts["other"].trial)


def test_own_cause(site: Site, cautious: Cautious) -> None:
    """An engine that only raises is left to raise here, so that the cause is kept."""
    site.write("engine", "raise OSError('driver')")
    site.install()
    registry = cautious()

    assert registry.select(MINE).name == "mine"
    with pytest.raises(BackendUnavailableError) as caught:
        registry.create("mine")
    assert isinstance(caught.value.__cause__, OSError)


def test_only_candidates(site: Site, cautious: Cautious, tmp_path: Path) -> None:
    """A backend that something else speaks against is not even tried."""
    started = tmp_path / "started"
    site.write("engine", engine_code(NOTE.format(str(started))))
    site.install(code=plugin_code(formats=("other",)))

    cautious().explain(BackendRequest(format="gguf"))

    assert not started.exists()


@pytest.mark.parametrize("seconds", ["x", "-1", "nan"])
def test_bad_seconds(
    site: Site, cautious: Cautious, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    """A time for trials that is none is an error that names the variable."""
    monkeypatch.setenv("LLMCORE_PLUGINS", "")
    registry = cautious()
    _ = registry.backends
    monkeypatch.delenv("LLMCORE_PLUGINS")
    monkeypatch.setenv("LLMCORE_TRIAL_SECONDS", seconds)

    with pytest.raises(ParameterError, match="LLMCORE_TRIAL_SECONDS must be a number"):
        registry._trials.of("engine:Engine", [])


# -- what is remembered ---------------------------------------------------------------


@pytest.fixture
def started(site: Site, tmp_path: Path) -> Callable[[], int]:
    """Installs a backend that works; says how often it was started."""
    notes = tmp_path / "started"
    notes.touch()
    site.write("engine", engine_code(NOTE.format(str(notes))))
    site.install()
    return lambda: len(notes.read_text())


def test_once_in_a_process(started: Callable[[], int], cautious: Cautious) -> None:
    """Threads that ask for a backend at the same time try it once between them."""
    registry = cautious()
    asking = [threading.Thread(target=registry.select, args=[MINE]) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()

    assert started() == 1


def test_once_for_all(started: Callable[[], int], cautious: Cautious) -> None:
    """The next process believes what the one before found."""
    cautious().select(MINE)
    registry = cautious()
    registry.select(MINE)

    assert started() == 1
    [verdict] = [v for v in registry.explain(BackendRequest()) if v.trial]
    assert str(verdict.trial) == "tried earlier: cpu 'CPU'"


def test_on_demand(started: Callable[[], int], cautious: Cautious) -> None:
    """A trial that is asked for is made, whatever is known."""
    registry = cautious()
    registry.select(MINE)

    assert registry.try_out("mine").failure == ""
    assert started() == 2


CHANGES = {
    "version": lambda site, about: about.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: llmcore-mine\nVersion: 1.1\n"
    ),
    "build": lambda site, about: about.joinpath("RECORD").write_text("engine.py,1,1\n"),
    "place": lambda site, about: site.describe("engine-of-mine", version="2.0"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed(
    site: Site, started: Callable[[], int], cautious: Cautious, change: Callable
) -> None:
    """Another version or build of a backend or of its engine is tried anew."""
    site.write(
        "llmcore_mine_mine",
        plugin_code(requires=("engine-of-mine; python_version>'4'",)),
    )
    cautious().select(MINE)

    change(site, site.root / "llmcore_mine-1.0.dist-info")
    cautious().select(MINE)

    assert started() == 2


@pytest.mark.parametrize("variable", ["CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"])
def test_other_devices(
    started: Callable[[], int],
    cautious: Cautious,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    """Other devices or drivers mean another trial."""
    cautious().select(MINE)
    monkeypatch.setenv(variable, "7")
    cautious().select(MINE)

    assert started() == 2


@posix
def test_repaired(site: Site, cautious: Cautious) -> None:
    """What an earlier process remembers is tried again before anything is refused."""
    site.write("engine", "import os; os.abort()")
    site.install()
    for request in (MINE, BackendRequest()):
        with pytest.raises(BackendUnavailableError):
            cautious().select(request)

    site.write("engine", f"{engine_code()}# longer than before")

    assert cautious().select(MINE).name == "mine"
    assert cautious().select(BackendRequest()).name == "mine"


def test_off(
    site: Site, cautious: Cautious, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without trials nothing is started, and nothing is remembered."""
    monkeypatch.setenv("LLMCORE_TRIAL_SECONDS", "0")
    site.write("engine", "import os; os.abort()")
    site.install()

    assert cautious().select(MINE).name == "mine"
    assert not (tmp_path / "cache").exists()


def test_own_is_trusted(site: Site, cautious: Cautious) -> None:
    """What is a part of llmcore, and needs nothing else, is not tried."""
    site.install("llmcore-runtime", plugin_code("built_in"), plugin="built_in_of_test")
    registry = cautious()

    assert registry.select(BackendRequest()).name == "built_in"
    [verdict] = [v for v in registry.explain(BackendRequest()) if v.trial]
    assert "a part of llmcore" in str(verdict.trial)


def test_json(started: Callable[[], int], cautious: Cautious, tmp_path: Path) -> None:
    """What is remembered is plain JSON."""
    cautious().select(MINE)

    entries = json.loads((tmp_path / "cache" / "trials.json").read_text())

    assert all({"time", "trial"} == set(entry) for entry in entries.values())
