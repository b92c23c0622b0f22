"""
The pytest plugin: options, the choice of tests, what a failure says, the report.

Does nothing unless ``--llmcore-backend`` is given, or a ``conftest.py`` answers the
hook `pytest_llmcore_target`. The fixtures are in `llmcore_conformance.fixtures`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llmcore_conformance.run import Run

pytest.register_assert_rewrite("llmcore_conformance.checks")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the suite."""
    group = parser.getgroup("llmcore", "conformance to the llmcore spec")
    add = group.addoption
    add("--llmcore-backend", metavar="NAME", help="installed backend, or module:attr")
    add("--llmcore-model", metavar="FILE", help="model file; default: a tiny one")
    add(
        "--llmcore-isolation",
        choices=["process"],
        help="run the engine in a process of its own",
    )
    add(
        "--llmcore-profile",
        metavar="NAME",
        action="append",
        default=[],
        help="only the clauses of this profile (may be repeated)",
    )
    add(
        "--llmcore-clause",
        metavar="PATTERN",
        action="append",
        default=[],
        help="only these clauses, such as 'dispose.*' (may be repeated)",
    )
    add(
        "--llmcore-spec",
        metavar="VERSION|PATH",
        help="no clauses newer than this; or only if this is the spec of the suite",
    )
    add("--llmcore-deviations", metavar="FILE", help="TOML file of known deviations")
    add("--llmcore-report", metavar="FILE", help="write the report here, as JSON")
    add(
        "--llmcore-journal",
        metavar="FILE",
        help="write each step here at once; tests that are in there are not run again",
    )
    add(
        "--llmcore-patience",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="after which a wait counts as a hang (default: 30)",
    )


class Hooks:
    """Hooks that a backend's author can implement in a ``conftest.py``."""

    @pytest.hookspec(firstresult=True)
    def pytest_llmcore_target(self, config: pytest.Config) -> Any:
        """Return the `llmcore_conformance.target.Target` to test."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks for authors."""
    pluginmanager.add_hookspecs(Hooks)


@pytest.hookimpl(trylast=True)
def pytest_llmcore_target(config: pytest.Config) -> Any:
    """The target that the options name."""
    name = config.getoption("--llmcore-backend")
    if name is None:
        return None
    from llmcore.errors import LlmcoreError
    from llmcore_conformance.target import find_target

    try:
        target = find_target(name, isolation=config.getoption("--llmcore-isolation"))
    except (LlmcoreError, ImportError, AttributeError, TypeError) as error:
        raise pytest.UsageError(f"--llmcore-backend: {error}") from error
    model = config.getoption("--llmcore-model")
    return target if model is None else target.on(model)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start a run if there is something to test."""
    config.addinivalue_line("markers", "clause(id): the clause that this test proves")
    target = config.hook.pytest_llmcore_target(config=config)
    if target is None:
        return
    from llmcore_conformance import fixtures
    from llmcore_conformance.run import Run

    run = Run(config, target)
    config.pluginmanager.register(run, "llmcore-run")
    config.pluginmanager.register(fixtures, "llmcore-fixtures")
    journal = config.getoption("--llmcore-journal")
    if journal:
        from llmcore_conformance.journal import Journal, Journalist

        config.pluginmanager.register(Journalist(run, Journal(Path(journal))))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Refuse to run the suite against nothing."""
    suite = Path(__file__).with_name("suite")
    if config.pluginmanager.has_plugin("llmcore-run"):
        return
    if any(suite in item.path.parents for item in items):
        raise pytest.UsageError("which backend? use --llmcore-backend=NAME")


def current_run(config: pytest.Config) -> Run:
    """The run that is going on."""
    found: Any = config.pluginmanager.get_plugin("llmcore-run")
    run: Run = found
    return run
