"""
The suite catches every mutant, by the clause that is meant to, and says so in words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mutants import load_mutants

from llmcore_conformance.clauses import load_clauses

Reports = Callable[[str], dict[str, Any]]

MUTANTS = load_mutants()
CLAUSES = load_clauses()
UNHELPFUL = ("AttributeError", "TypeError", "NameError", "KeyError", "IndexError")


def defect(name: str) -> str:
    """What a mutant does wrong, in words."""
    return " ".join((MUTANTS[name].switch_on.__doc__ or "").split())


def failing(report: dict[str, Any]) -> dict[str, list[str]]:
    """The failing clauses of a report, and what was said about each."""
    return {
        id: entry["failures"]
        for id, entry in report["clauses"].items()
        if entry["outcome"] in ("fail", "crash")
    }


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_mutant_is_caught_by_its_clause_and_by_no_other(
    reports: Reports, name: str
) -> None:
    """Exactly the clause that a mutant breaks fails."""
    mutant = MUTANTS[name]
    found = failing(reports(name))
    text = "\n\n".join(message for messages in found.values() for message in messages)
    assert set(found) - set(mutant.also) == {mutant.kills}, text


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_caught_mutant_makes_the_result_a_failure(
    reports: Reports, name: str
) -> None:
    """A broken clause that binds makes a profile fail; another does not."""
    results = {profile["result"] for profile in reports(name)["profiles"]}
    binding = CLAUSES[MUTANTS[name].kills].binding
    assert ("failure" in results) is binding


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_the_message_says_what_is_broken(reports: Reports, name: str) -> None:
    """It names clause, sentence and likely cause, and is no accident of the test."""
    clause = CLAUSES[MUTANTS[name].kills]
    messages = failing(reports(name)).get(clause.id, [])
    assert messages, "the clause did not fail"
    for message in messages:
        assert clause.id in message
        assert clause.text in message
        assert defect(name) in message.rpartition("\nlikely cause: ")[2]
        seen = message.rpartition("\nseen ")[2].partition(": ")[2]
        assert not seen.startswith(UNHELPFUL), message


def test_each_mutant_breaks_a_clause_of_the_spec() -> None:
    """A mutant names a clause that exists."""
    named = {id for m in MUTANTS.values() for id in (m.kills, *m.also)}
    assert named <= set(CLAUSES)


def test_each_binding_clause_has_a_mutant() -> None:
    """What no mutant breaks, no test may claim to prove."""
    killed = {mutant.kills for mutant in MUTANTS.values()}
    binding = {id for id, clause in CLAUSES.items() if clause.binding}
    assert sorted(binding - killed - UNBREAKABLE.keys()) == []


def test_each_test_of_the_suite_catches_a_mutant(reports: Reports) -> None:
    """A test that no mutant fails proves nothing; exceptions have a reason."""
    outcomes: dict[str, set[str]] = {}
    for name in sorted(MUTANTS):
        for entry in reports(name)["clauses"].values():
            for test, outcome in entry["tests"].items():
                outcomes.setdefault(test.partition("[")[0], set()).add(outcome)
    idle = {test for test, seen in outcomes.items() if "fail" not in seen}
    assert idle - GUARDS.keys() == set(), "they caught nothing"
    assert GUARDS.keys() - idle == set(), "they catch something now: remove the reason"


GUARDS: dict[str, str] = {
    "test_dispose_owner.py::test_leaving_the_block_disposes": (
        "the plain case of what the mutants break by an exception"
    ),
    "test_thread.py::test_contexts_in_many_threads_answer_as_alone": (
        "only a real engine can mix its contexts up by chance"
    ),
}
"""Tests that catch no mutant here, with the reason to keep them."""

UNBREAKABLE: dict[str, str] = {}
"""Binding clauses that the null backend cannot break, with the reason."""
