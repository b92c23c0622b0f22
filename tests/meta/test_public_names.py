from __future__ import annotations

import inspect

import llmcore


def test_sorted() -> None:
    """The public names are listed once each and in order."""
    assert sorted(set(llmcore.__all__)) == list(llmcore.__all__)


def test_documented() -> None:
    """Every public class, function and module has a docstring of its own."""
    silent = [
        name
        for name in llmcore.__all__
        if inspect.isclass(value := getattr(llmcore, name))
        or inspect.isroutine(value)
        or inspect.ismodule(value)
        if not value.__doc__
    ]

    assert silent == []


def test_listed() -> None:
    """Completion offers every public name."""
    assert set(llmcore.__all__) <= set(dir(llmcore))
