"""
The page that compares backends, from the reports of real runs.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from runner import run_suite

from llmcore_conformance.matrix import MatrixError, main, render


@pytest.fixture(scope="module")
def null(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a part of the suite on the null backend."""
    return run_suite(tmp_path_factory.mktemp("null"), "--llmcore-clause=load.*")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same of one that can do little."""
    folder = tmp_path_factory.mktemp("bare")
    report = run_suite(folder, "--llmcore-clause=load.*", backend="odd:BARE")
    report["subject"]["backend"] = "bare"
    return report


def test_each_backend_has_a_column(null: dict[str, Any], bare: dict[str, Any]) -> None:
    """In the order of the reports, with what was proved of each area."""
    page = render([null, bare])
    assert "| profile | null | bare |" in page
    assert "| `load` | 9 of 9 | 6 of 6 |" in page


def other_build(report: dict[str, Any], engine: str, gpu: str) -> dict[str, Any]:
    other = copy.deepcopy(report)
    other["subject"]["engine"] = engine
    other["operations"]["gpu"] = gpu
    return other


def test_builds_of_one_backend_are_told_apart(null: dict[str, Any]) -> None:
    """By what they were installed as, by a GPU, and by being isolated."""
    cuda = other_build(null, "null 0.1.0", "native")
    vulkan = other_build(null, "null-vulkan 0.1.0", "native")
    isolated = copy.deepcopy(vulkan)
    isolated["subject"]["isolation"] = "process"

    page = render([null, cuda, vulkan, isolated])

    names = "null | null, GPU | null-vulkan, GPU | null-vulkan, GPU, isolated"
    assert f"| profile | {names} |" in page


def test_two_reports_of_one_build_are_refused(null: dict[str, Any]) -> None:
    """Nobody could tell which column is which."""
    with pytest.raises(MatrixError, match="two reports of null: leave one"):
        render([null, copy.deepcopy(null)])


def test_emulations_are_marked(null: dict[str, Any], bare: dict[str, Any]) -> None:
    """What one engine does and core does for the other."""
    assert "| sampling | native | emulated |" in render([null, bare])


def test_what_fails_is_listed(null: dict[str, Any]) -> None:
    """With its test, and deviations with their reason."""
    report = copy.deepcopy(null)
    report["clauses"]["load.cancel"]["outcome"] = "crash"
    report["clauses"]["load.cancel"]["tests"]["test_load.py::test_a"] = "crash"
    report["deviations"] = [
        {
            "test": "test_b",
            "clause": "load.progress",
            "kind": "never",
            "reason": "it cannot",
            "url": "",
        }
    ]
    page = render([report])
    assert "- null, `load.cancel` (MUST), **crash**: `test_load.py::test_a`" in page
    assert "- null, `load.progress`, never: it cannot" in page


def test_reports_of_different_specs_do_not_mix(null: dict[str, Any]) -> None:
    """Numbers are compared only if they count the same clauses."""
    other = copy.deepcopy(null)
    other["spec"]["digest"] = "sha256:0"
    with pytest.raises(MatrixError, match="run the suite again"):
        render([null, other])


def test_the_page_is_checked(null: dict[str, Any], tmp_path: Path) -> None:
    """It is written, then found to be right, and stale after a change."""
    report, page = tmp_path / "report.json", tmp_path / "page.md"
    report.write_text(json.dumps(null))
    command = [str(report), f"--output={page}"]
    assert main(command) == 0
    assert main([*command, "--check"]) == 0
    page.write_text("something else")
    assert main([*command, "--check"]) == 1


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    """Exit code 2, and no page."""
    report, page = tmp_path / "report.json", tmp_path / "page.md"
    report.write_text("{}")
    assert main([str(report), f"--output={page}"]) == 2
    assert not page.exists()
