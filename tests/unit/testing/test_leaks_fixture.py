"""The fixture `llmcore_leaks`, as somebody's own tests use it."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

TESTS = """\
import gc

import pytest

import llmcore
from llmcore.testing import null_backend

pytest_plugins = ["llmcore.testing.pytest"]
pytestmark = pytest.mark.usefixtures("llmcore_leaks")
kept = []


@pytest.fixture
def model(llmcore_leaks):
    with llmcore.get_llama(null_backend()) as llama:
        yield llama.load_model()


def test_clean(model):
    with model.create_context(context_size=64) as context:
        context.get_sequence().dispose()


def test_leaking():
    llama = llmcore.get_llama(null_backend())
    kept.append(llama.load_model())  # LEAK


def test_forgotten():
    gc.disable()
    llama = llmcore.get_llama(null_backend())
    llama.itself = llama  # only the collector would find it


def test_raising():
    llama = llmcore.get_llama(null_backend())
    kept.append(pytest.raises(ZeroDivisionError, load, llama))


def load(llama):
    model = llama.load_model()
    1 / 0


def test_allowed(llmcore_leaks):
    kept.append(llmcore.get_llama(null_backend()))
    llmcore_leaks.allow(kept[-1])


def test_growing(llmcore_leaks):
    llmcore_leaks.growth(lambda: kept.append(b"x" * 2**20), 4, most=2**16)
"""


def test_outcomes(pytester: pytest.Pytester) -> None:
    """Tests that leak fail, and say what and where; clean ones pass."""
    file = pytester.makepyfile(TESTS)
    leaking = TESTS[: TESTS.index("# LEAK")].count("\n") + 1

    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rEfp")

    done.assert_outcomes(passed=5, failed=1, errors=3)
    done.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_leaking*",
            "2 leaks found",
            "llama#* is live and was never disposed; use `with` or call dispose()",
            f"*made at {file}:{leaking} in test_leaking: kept.append(*",
            "  held by an item of a list, global 'kept' of module test_outcomes",
            "*ERROR at teardown of test_forgotten*",
            "llama#* was forgotten: nobody refers to it any more*",
            "*ERROR at teardown of test_raising*",
            "  held by local variable 'model' of load (*, the traceback of Zero*",
            "*RAM grows by 1.0 MiB with each round*",
        ]
    )
    assert "During handling" not in done.stdout.str()
