"""The example plugin is small, is what the tutorial says, and keeps the contract."""

from __future__ import annotations

import importlib
import io
import re
import tokenize
from collections import defaultdict
from pathlib import Path

import pytest

import llmcore
from llmcore.testing import checked

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins/llmcore-example"
TUTORIAL = ROOT / "docs/write-a-backend.md"
MOST_LINES = 120
BLOCK = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> dict[str, list[str]]:
    """The blocks of the tutorial by the file that they name."""
    found = defaultdict(list)
    for block in BLOCK.finditer(TUTORIAL.read_text("utf-8")):
        found[block[1]].append(block[2].strip())
    return found


def lines_of_code(path: Path) -> int:
    """Lines that hold more than a comment or a docstring."""
    silent = {"COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER"}
    lines: set[int] = set()
    source = path.read_text("utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = token.string.startswith('"""')
        if tokenize.tok_name[token.type] not in silent and not is_docstring:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


def test_length() -> None:
    """The example is at most 120 lines of code in all."""
    files = [*(PLUGIN / "src").rglob("*.py")]

    assert 0 < sum(map(lines_of_code, files)) <= MOST_LINES


def test_blocks_are_the_code() -> None:
    """Each block of the tutorial stands in the file that it names."""
    wrong = [
        f"{name}: {block}"
        for name, texts in blocks().items()
        for block in texts
        if block not in (PLUGIN / name).read_text("utf-8")
    ]

    assert wrong == []


def test_blocks_are_all_of_the_code() -> None:
    """The blocks of the tutorial, one after the other, are the whole plugin."""
    files = (PLUGIN / "src").rglob("*.py")
    whole = {path.relative_to(PLUGIN).as_posix(): path for path in files}
    shown = {name: "\n".join(texts).split() for name, texts in blocks().items()}

    assert {name: shown.get(name) for name in whole} == {
        name: path.read_text("utf-8").split() for name, path in whole.items()
    }


def test_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever core does with the example, both keep the contract of the seam."""
    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    plugin = importlib.import_module("llmcore_example")
    backend = importlib.import_module("llmcore_example.backend")
    testing = importlib.import_module("llmcore_example.testing")
    testing.write_model(tmp_path / "a.markov")
    engine = checked(backend.ExampleBackend(), plugin.INFO)
    with llmcore.get_llama(engine) as llama:
        model = llama.load_model(tmp_path / "a.markov")
        context = model.create_context(context_size=128, sequences=2, batch_size=8)
        prompt = model.tokenize("there was a king")
        with context.get_sequence() as one, context.get_sequence() as two:
            streams = [s.generate(prompt, max_tokens=10) for s in (one, two)]
            assert [s.result.text for s in streams] == [" had three"] * 2
            one.truncate(3)
            one.evaluate(prompt)

    assert (engine.violations, engine.live) == ([], {})
