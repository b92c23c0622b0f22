"""
Deviations: the tests that a backend is known to fail, as its author declares them.

    [[deviation]]
    test = "test_a_state_outlives_its_context"
    clause = "state.owned"
    kind = "notyet"      # notimpl: we could; notyet: upstream cannot; never
    reason = "upstream returns a view"
    url = "https://example.org/issues/123"    # optional
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen, validators

from llmcore_conformance.clauses import Clause


class DeviationError(ValueError):
    """The file of deviations does not fit the suite."""


@frozen(kw_only=True)
class Deviation:
    """One test that is expected to fail; a test that passes after all is an error."""

    test: str
    clause: str
    kind: Literal["notimpl", "notyet", "never"] = field(
        validator=validators.in_(("notimpl", "notyet", "never"))
    )
    reason: str = field(validator=validators.min_len(1))
    url: str = ""


def read_deviations(path: Path, clauses: Mapping[str, Clause]) -> list[Deviation]:
    """
    The deviations in a file.

    Raises:
        DeviationError: It cannot be read, or names a clause that is not there.
    """
    try:
        entries: list[dict[str, Any]] = tomllib.loads(
            path.read_text(encoding="utf-8")
        ).get("deviation", [])
        found = [Deviation(**entry) for entry in entries]
    except (OSError, TypeError, ValueError) as error:
        raise DeviationError(
            f"cannot read deviations {str(path)!r}: {error}"
        ) from error
    for deviation in found:
        if deviation.clause not in clauses:
            raise DeviationError(
                f"deviation of {deviation.test!r}: the spec has no clause "
                f"{deviation.clause!r}"
            )
    return found


def check_matched(
    deviations: Iterable[Deviation], tests: Mapping[str, str]
) -> dict[str, Deviation]:
    """
    Deviations by test name.

    Args:
        tests: The clause of each test of the suite, by the test's name.

    Raises:
        DeviationError: One names a test that is not there, or is of another clause.
    """
    by_test: dict[str, Deviation] = {}
    for deviation in deviations:
        actual = tests.get(deviation.test)
        if actual != deviation.clause:
            known = f"it belongs to {actual!r}" if actual else "there is no such test"
            raise DeviationError(
                f"stale deviation of {deviation.test!r} ({deviation.clause}): {known}; "
                "remove or correct it"
            )
        by_test[deviation.test] = deviation
    return by_test
