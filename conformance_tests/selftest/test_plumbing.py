"""
The suite as a program: what it refuses, what it reports, and whom it does not mind.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from odd import ODD
from runner import run_suite

from llmcore_conformance import clauses
from llmcore_conformance.clauses import load_clauses
from llmcore_conformance.profiles import judge, profile_clauses

CLAUSES = load_clauses()
PASSES = """
from llmcore_conformance import clause

@clause("dispose.idempotent")
def test_good(llama):
    "It works."
    llama.dispose()
"""
LOADS = PASSES.replace("(llama)", "(llama, model)")
FAILS = """
from llmcore_conformance import clause

@clause("dispose.idempotent")
def test_bad(llama):
    "It does not work."
    assert llama.disposed
"""
DEVIATION = """
[[deviation]]
test = "{test}"
clause = "{clause}"
kind = "notyet"
reason = "upstream cannot"
"""


def run(
    pytester: pytest.Pytester, source: str, *options: str
) -> tuple[pytest.RunResult, dict[str, Any]]:
    """Run one test module against the null backend; the result and the report."""
    pytester.makepyfile(source)
    report = pytester.path / "report.json"
    base = ("-p", "no:cacheprovider", f"--llmcore-report={report}")
    if not any(option.startswith("--llmcore-backend") for option in options):
        options = ("--llmcore-backend=null", *options)
    result = pytester.runpytest_subprocess(*base, *options)  # it imports engines
    found = json.loads(report.read_text()) if report.exists() else {}
    return result, found


def deviate(pytester: pytest.Pytester, test: str, clause: str) -> str:
    """The option for a file with one deviation."""
    path = pytester.path / "deviations.toml"
    path.write_text(DEVIATION.format(test=test, clause=clause))
    return f"--llmcore-deviations={path}"


def assert_usage_error(result: pytest.RunResult, *words: str) -> None:
    """The run was refused, with these words."""
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR, text
    for word in words:
        assert word in text


# -- what is refused -------------------------------------------------------------------


def test_an_unknown_backend_is_refused(pytester: pytest.Pytester) -> None:
    """The name that is not installed is in the message."""
    result, _ = run(pytester, PASSES, "--llmcore-backend=nobody")
    assert_usage_error(result, "nobody")


def test_the_suite_needs_a_backend(pytester: pytest.Pytester) -> None:
    """Without --llmcore-backend the suite says which option is missing."""
    result = pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "--pyargs", "llmcore_conformance.suite.test_plugin"
    )
    assert_usage_error(result, "--llmcore-backend")


def test_an_unknown_profile_is_refused(pytester: pytest.Pytester) -> None:
    """The message lists the profiles that there are."""
    result, _ = run(pytester, PASSES, "--llmcore-profile=all")
    assert_usage_error(result, "all", "multi-sequence")


def test_a_test_of_an_unknown_clause_is_refused(pytester: pytest.Pytester) -> None:
    """A clause id that the spec does not have stops the run."""
    source = PASSES.replace("dispose.idempotent", "dispose.sometimes")
    result, _ = run(pytester, source)
    assert_usage_error(result, "dispose.sometimes")


def test_a_test_of_two_clauses_is_refused(pytester: pytest.Pytester) -> None:
    """A test proves one clause."""
    twice = '@clause("dispose.idempotent")\n'
    result, _ = run(pytester, PASSES.replace(twice, twice + twice))
    assert_usage_error(result, "exactly one clause")


def test_a_deviation_of_no_test_is_refused(pytester: pytest.Pytester) -> None:
    """A stale deviation stops the run."""
    option = deviate(pytester, "test_gone", "dispose.idempotent")
    result, _ = run(pytester, PASSES, option)
    assert_usage_error(result, "test_gone", "stale")


def test_a_deviation_of_another_clause_is_refused(pytester: pytest.Pytester) -> None:
    """A deviation must name the clause of its test."""
    option = deviate(pytester, "test_bad", "dispose.reopen")
    result, _ = run(pytester, FAILS, option)
    assert_usage_error(result, "dispose.idempotent")


def test_a_deviation_of_no_clause_is_refused(pytester: pytest.Pytester) -> None:
    """A deviation from what the spec does not say stops the run."""
    option = deviate(pytester, "test_bad", "dispose.sometimes")
    result, _ = run(pytester, FAILS, option)
    assert_usage_error(result, "dispose.sometimes")


# -- the spec, and the model -----------------------------------------------------------

SPEC = Path(__file__).parents[2] / "spec"


def test_an_older_spec_has_fewer_clauses(pytester: pytest.Pytester) -> None:
    """What is newer than the version that was asked for is not judged."""
    newer = next(c.id for c in CLAUSES.values() if c.since == "1.1")
    source = FAILS.replace("dispose.idempotent", newer)
    result, report = run(pytester, source, "--llmcore-spec=1.0")
    result.assert_outcomes(deselected=1)
    assert report["spec"]["version"] == "1.0"
    assert set(report["clauses"]) == {
        c.id for c in CLAUSES.values() if c.since == "1.0"
    }


def test_a_newer_spec_is_refused(pytester: pytest.Pytester) -> None:
    """The message says which suite to install."""
    result, _ = run(pytester, PASSES, "--llmcore-spec=1.99")
    assert_usage_error(result, "llmcore-conformance==1.99.*")


def test_the_spec_of_the_suite_is_known(pytester: pytest.Pytester) -> None:
    """The folder of the text that the suite was made from is accepted."""
    result, _ = run(pytester, PASSES, f"--llmcore-spec={SPEC}")
    result.assert_outcomes(passed=1)


def test_another_spec_is_refused(pytester: pytest.Pytester) -> None:
    """The message names the clauses that differ."""
    text = (SPEC / "clauses.json").read_text(encoding="utf-8")
    sentence = CLAUSES["dispose.idempotent"].text
    other = pytester.path / "clauses.json"
    other.write_text(text.replace(sentence, "Anything."), encoding="utf-8")
    result, _ = run(pytester, PASSES, f"--llmcore-spec={other}")
    assert_usage_error(result, "differ in dispose.idempotent")


def test_a_suite_for_another_core_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that implements an older spec lacks what the suite uses."""
    monkeypatch.setattr(clauses, "SPEC_VERSION", "1.0")
    with pytest.raises(clauses.SpecError, match=r"llmcore-conformance==1\.0\.\*"):
        clauses.choose_spec(None)


@pytest.fixture
def odd_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that the test starts find the odd backends."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.mark.usefixtures("odd_path")
def test_a_backend_for_another_spec_is_refused(pytester: pytest.Pytester) -> None:
    """Also one that no plugin provides; the message names both versions."""
    pytester.makepyfile(
        newer="from attrs import evolve\nfrom odd import INFO\n"
        "NEWER = evolve(INFO, spec='2.0')\n"
    )
    result, _ = run(pytester, PASSES, "--llmcore-backend=newer:NEWER")
    assert_usage_error(result, "2.0", "1.1")


@pytest.mark.usefixtures("odd_path")
def test_an_unknown_format_needs_a_model(pytester: pytest.Pytester) -> None:
    """The message names the format and the option."""
    result, _ = run(pytester, PASSES, "--llmcore-backend=odd:READS_FILES")
    assert_usage_error(result, "reads odd", "--llmcore-model=FILE")


def test_a_distribution_may_bring_a_model(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry point for the format writes the model that the tests load."""
    pytester.makepyfile(brings="def write(path): path.write_bytes(b'odd model')")
    metadata = pytester.mkdir("brings-1.0.dist-info")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: brings\n")
    (metadata / "entry_points.txt").write_text(
        "[llmcore.test_models]\nodd=brings:write"
    )
    path = [str(Path(__file__).parent), str(pytester.path)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    result, report = run(pytester, LOADS, "--llmcore-backend=odd:READS_FILES")
    result.assert_outcomes(passed=1)
    assert report["environment"]["model"]["name"] == "write.odd"


@pytest.mark.usefixtures("odd_path")
def test_a_model_that_cannot_be_loaded_is_told(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    """The report says why nothing works."""
    model = tmp_path / "bad.odd"
    model.write_bytes(b"something else")
    options = ("--llmcore-backend=odd:READS_FILES", f"--llmcore-model={model}")
    _, report = run(pytester, LOADS, *options)
    assert "it does not begin with 'odd'" in report["subject"]["problem"]


# -- what is reported ------------------------------------------------------------------


def test_a_failure_speaks_for_itself(pytester: pytest.Pytester) -> None:
    """The terminal shows the id, the sentence, the claim, and what was seen."""
    result, report = run(pytester, FAILS)
    text = result.stdout.str()
    assert str(CLAUSES["dispose.idempotent"]) in text
    assert "claims: It does not work." in text
    assert "seen (call): AssertionError" in text
    assert report["clauses"]["dispose.idempotent"]["outcome"] == "fail"
    assert report["profiles"][0]["result"] == "failure"


def test_a_deviation_is_reported(pytester: pytest.Pytester) -> None:
    """A failure that was declared makes the profile partial, and is listed."""
    option = deviate(pytester, "test_bad", "dispose.idempotent")
    result, report = run(pytester, FAILS, option)
    assert result.ret == 0
    assert report["clauses"]["dispose.idempotent"]["outcome"] == "deviation"
    assert report["profiles"][0]["result"] == "partial"
    assert report["deviations"][0]["reason"] == "upstream cannot"


def test_a_deviation_that_passes_fails(pytester: pytest.Pytester) -> None:
    """A deviation that is not needed any more must go."""
    option = deviate(pytester, "test_good", "dispose.idempotent")
    _, report = run(pytester, PASSES, option)
    assert report["clauses"]["dispose.idempotent"]["outcome"] == "fail"


def test_what_was_not_run_is_not_proved(pytester: pytest.Pytester) -> None:
    """Choosing tests with -k makes the profile partial."""
    _, report = run(pytester, PASSES, "-k", "nothing")
    assert report["clauses"]["dispose.idempotent"]["outcome"] == "not-run"
    assert report["profiles"][0]["result"] == "partial"


def test_a_pattern_chooses_clauses(pytester: pytest.Pytester) -> None:
    """--llmcore-clause runs only the tests of the clauses that match."""
    result, _ = run(pytester, PASSES, "--llmcore-clause=load.*")
    result.assert_outcomes(deselected=1)


def test_what_is_not_declared_is_not_run(
    pytester: pytest.Pytester, odd_path: None
) -> None:
    """The tests of an undeclared capability are left out and reported as such."""
    state = next(c.id for c in CLAUSES.values() if c.requires == "state-io")
    source = FAILS.replace("dispose.idempotent", state)
    result, report = run(pytester, source, "--llmcore-backend=odd:BARE")
    result.assert_outcomes(deselected=1)
    assert report["clauses"][state]["outcome"] == "not-supported"


def test_other_tests_are_left_alone(pytester: pytest.Pytester) -> None:
    """Without a backend the plugin adds no fixture and changes no test."""
    pytester.makepyfile("def test_own(): pass\ndef test_alien(sequence): pass")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)


def test_what_core_emulates_is_marked(
    pytester: pytest.Pytester, odd_path: None
) -> None:
    """The operation, and the clauses that are kept by it."""
    _, report = run(pytester, PASSES, "--llmcore-backend=odd:BARE")
    assert report["operations"]["sampling"] == "emulated"
    assert report["clauses"]["gen.greedy-repeatable"]["emulated"]
    assert not report["clauses"]["dispose.idempotent"]["emulated"]


def test_nothing_is_run_twice(pytester: pytest.Pytester) -> None:
    """A run that is given the journal of another one takes over what became of it."""
    journal = f"--llmcore-journal={pytester.path / 'journal'}"
    run(pytester, FAILS, journal)
    result, report = run(pytester, FAILS, journal)
    result.assert_outcomes(deselected=1)
    assert report["clauses"]["dispose.idempotent"]["outcome"] == "fail"


def test_an_isolated_backend_is_called_so(pytester: pytest.Pytester) -> None:
    """The option reaches the target, and the report says that it did."""
    pytest.importorskip("msgspec")
    result, report = run(pytester, LOADS, "--llmcore-isolation=process")
    result.assert_outcomes(passed=1)
    assert report["subject"]["isolation"] == "process"
    assert report["operations"]["sampling"] == "native"


def test_what_core_does_beside_an_isolated_engine_is_emulated(
    pytester: pytest.Pytester, odd_path: None
) -> None:
    """Isolated, an engine that cannot sample declares that it can: core does it."""
    pytest.importorskip("msgspec")
    options = ("--llmcore-backend=odd:BARE", "--llmcore-isolation=process")
    result, report = run(pytester, LOADS, *options)
    result.assert_outcomes(passed=1)
    assert "native-sampling" in report["capabilities"]["declared"]
    assert report["operations"]["sampling"] == "emulated"


@pytest.mark.parametrize(
    ("outcomes", "result"),
    [
        (["pass"], "success"),
        (["pass", "fail"], "failure"),
        (["pass", "crash"], "failure"),
        (["pass", "deviation"], "partial"),
        (["pass", "not-run"], "partial"),
        (["fail", "not-run"], "failure"),
        (["pass", "not-supported"], "success"),
    ],
)
def test_a_profile_is_as_good_as_its_worst_clause(
    outcomes: list[str], result: str
) -> None:
    """Failures beat gaps, gaps beat success, what does not apply does not count."""
    binding = [c.id for c in profile_clauses("core", CLAUSES) if c.binding]
    found = dict.fromkeys(CLAUSES, "pass") | dict(zip(binding, outcomes, strict=False))
    assert judge("core", CLAUSES, found)["result"] == result


def test_what_does_not_bind_changes_no_result() -> None:
    """A SHOULD that fails is counted apart."""
    found = {c.id: "pass" if c.binding else "fail" for c in CLAUSES.values()}
    core = judge("core", CLAUSES, found)
    assert core["result"] == "success"
    assert core["should"]["fail"] > 0


# -- who passes ------------------------------------------------------------------------


def test_the_null_backend_passes(tmp_path: Path) -> None:
    """All profiles that apply to the unbroken backend succeed."""
    report = run_suite(tmp_path)
    results = {profile["name"]: profile["result"] for profile in report["profiles"]}
    assert results.pop("gpu") == "not-supported"
    assert set(results.values()) == {"success"}, report["output"]


@pytest.mark.parametrize("backend", ODD)
def test_an_odd_but_right_backend_passes(backend: str, tmp_path: Path) -> None:
    """What is unusual and right keeps the core profile, and fails no other."""
    options = []
    if backend == "READS_FILES":
        model = tmp_path / "model.odd"
        model.write_bytes(b"odd, and whole")
        options.append(f"--llmcore-model={model}")
    report = run_suite(tmp_path, *options, backend=f"odd:{backend}")
    results = {profile["name"]: profile["result"] for profile in report["profiles"]}
    assert results["core"] == "success", report["output"]
    assert set(results.values()) <= {"success", "not-supported"}, report["output"]
