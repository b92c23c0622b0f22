"""What can name a model, and what is said about what cannot."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest

from llmcore.errors import ParameterError
from llmcore.plugins import Registry
from llmcore.sources import Source


@pytest.mark.parametrize(
    ("text", "scheme", "name", "revision"),
    [
        ("a.gguf", "path", "a.gguf", None),
        ("path:/b/a.gguf", "path", "/b/a.gguf", None),
        ("path:hf:a", "path", "hf:a", None),
        ("../a.gguf", "path", "../a.gguf", None),
        ("C:\\models\\a.gguf", "path", "C:\\models\\a.gguf", None),
        ("c:a.gguf", "path", "c:a.gguf", None),
        (PureWindowsPath("d:/a.gguf"), "path", "d:\\a.gguf", None),
        (Path("hf:o/r/a.gguf"), "path", "hf:o/r/a.gguf", None),
        ("hf:o/r/a.gguf", "hf", "o/r/a.gguf", None),
        ("HF:o/r/b/a.gguf", "hf", "o/r/b/a.gguf", None),
        ("hf:o/r/a.gguf@main", "hf", "o/r/a.gguf", "main"),
        ("hf:o/r/a.gguf@refs/pr/1", "hf", "o/r/a.gguf", "refs/pr/1"),
        ("hf:o.1/R-2_x/a b.gguf", "hf", "o.1/R-2_x/a b.gguf", None),
    ],
)
def test_parsed(text, scheme: str, name: str, revision: str | None) -> None:
    """Paths, names on a hub and drives of Windows are told apart."""
    expected = Source(scheme=scheme, name=name, revision=revision)

    assert Source.parse(text) == expected
    assert Source.parse(expected) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path:", "names no file"),
        ("", "names no file"),
        ("hf:", "names no file"),
        ("hf:o", "names no file"),
        ("hf:o/r", "names no file"),
        ("hf:o/r/", "names no file"),
        ("hf:o/r/b/", "names no file"),
        ("hf:o/r@main", "names no file"),
        ("hf:o/r/a.gguf@", "empty revision"),
        ("hf:o/r/../a.gguf", "cannot be a file"),
        ("hf:o/r/./a.gguf", "cannot be a file"),
        ("hf:o/r//a.gguf", "cannot be a file"),
        ("hf:o/r/b\\a.gguf", "cannot be a file"),
        ("hf:o/r/a\n.gguf", "cannot be a file"),
        ("hf:o/r/a.gguf?x=1", "cannot be a file"),
        ("hf:../r/a.gguf", "'..' cannot be the name of an owner"),
        ("hf:o/r--s/a.gguf", "'r--s' cannot be the name of an owner"),
        ("hf:/r/a.gguf", "'' cannot be the name of an owner"),
        ("hf:o/r/a.gguf@../b", "'../b' cannot be a revision"),
        ("hf:o/r/a.gguf@a b", "'a b' cannot be a revision"),
    ],
)
def test_refused(text: str, words: str) -> None:
    """What cannot be a name is a `ParameterError` that shows it and says why."""
    with pytest.raises(ParameterError) as caught:
        Source.parse(text)

    assert words in str(caught.value)
    assert text in caught.value.args[0] or repr(text)[1:-1] in caught.value.args[0]


def test_unknown_scheme(plugins: Registry) -> None:
    """An unknown scheme is answered with those there are, and the way to a path."""
    with pytest.raises(ParameterError) as caught:
        Source.parse("htf:o/r/a.gguf")

    assert str(caught.value) == (
        "source 'htf:o/r/a.gguf' has the unknown scheme 'htf', did you mean 'hf'? "
        "(known: hf, path); for a file of that name write 'path:htf:o/r/a.gguf'"
    )


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde is the home folder."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")

    assert Source.parse("~/a.gguf").name == "/home/me/a.gguf"
    assert Source.parse("path:~/a.gguf").name == "/home/me/a.gguf"


def test_shown() -> None:
    """A source shows itself as it can be written."""
    for text in ("hf:o/r/a.gguf@main", "path:/a.gguf"):
        assert str(Source.parse(text)) == text
