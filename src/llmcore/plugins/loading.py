"""
One guarded pass over the installed plugins.

pluggy's own `load_setuptools_entrypoints` stops at the first plugin that cannot be
imported, silently drops the second of two with the same name, and accepts misspelt
hooks, so the walk is done here and pluggy keeps the hooks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from types import ModuleType

import pluggy
from attrs import frozen

from llmcore import hookspecs
from llmcore.plugins.compatibility import find_obstacle
from llmcore.plugins.discovery import GROUP, discover
from llmcore.plugins.trials import Trials
from llmcore.plugins.values import (
    CORE,
    SCHEMES,
    Origin,
    PluginProblem,
    Registered,
    RegisteredSource,
    SourceInfo,
    Stage,
)
from llmcore.plugins.wording import describe, did_you_mean
from llmcore.values import BackendInfo

SLOW_IMPORT = 1.0
"""Seconds that the import of a plugin may take before it is called slow."""

Clock = Callable[[], float]
Caller = Callable[..., object]
"""A hook restricted to one plugin, so that its failure stays its own."""


@frozen(kw_only=True)
class Loaded:
    """What one pass found."""

    registered: tuple[Registered, ...]
    problems: tuple[PluginProblem, ...]
    disabled: tuple[tuple[Origin, str], ...]
    policies: tuple[tuple[Origin, Caller], ...]
    listeners: tuple[tuple[Origin, Caller], ...]
    watchers: tuple[tuple[Origin, Caller], ...]
    sources: Mapping[str, RegisteredSource]


def load(clock: Clock, trials: Trials) -> Loaded:
    """Import, register and ask every installed plugin; raises nothing of theirs."""
    loader = _Loader(clock, trials)
    found = discover()
    loader.problems.extend(found.problems)
    for origin, point in found.wanted:
        loader.load(origin, point)
    loader.find_conflicts()
    sources = loader.find_sources()
    return Loaded(
        registered=tuple(loader.registered),
        problems=tuple(loader.problems),
        disabled=tuple(found.disabled),
        policies=tuple(loader.callers("llmcore_select_backend")),
        listeners=tuple(loader.callers("llmcore_resource_event")),
        watchers=tuple(loader.callers("llmcore_telemetry_event")),
        sources=sources,
    )


class _Loader:
    """Collects what works and what does not; lives for one pass."""

    def __init__(self, clock: Clock, trials: Trials) -> None:
        self.registered: list[Registered] = []
        self.problems: list[PluginProblem] = []
        self._clock = clock
        self._trials = trials
        self._plugins: dict[str, tuple[Origin, ModuleType]] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)

    def load(self, origin: Origin, point: EntryPoint) -> None:
        """Take one plugin as far as it goes."""
        with self._guard(origin, "import"):
            module = self._import(origin, point)
            with self._guard(origin, "register"):
                self._register(origin, module)
                with self._guard(origin, "info"):
                    self._ask(origin, module)

    @contextmanager
    def _guard(self, origin: Origin, stage: Stage) -> Iterator[None]:
        """Turn whatever the block raises, `SystemExit` too, into a problem."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            message = f"failed at stage {stage!r}: {describe(error)}"
            self.problems.append(origin.problem(stage, message, error))

    def _try(self, origin: Origin, point: EntryPoint) -> None:
        """Import a stranger's plugin in a child process first: it may hang."""
        trial = self._trials.of(point.module, [origin.distribution])
        if trial.lethal:  # what an earlier process remembers may be repaired by now
            trial = self._trials.of(
                point.module, [origin.distribution], believe="process"
            )
        if trial.lethal:
            raise ImportError(trial.failure)
        if trial.noise:
            message = f"its import writes to standard output: {trial.noise!r}"
            self.problems.append(origin.problem("noise", message))

    def _import(self, origin: Origin, point: EntryPoint) -> ModuleType:
        if origin.distribution != CORE:
            self._try(origin, point)
        start = self._clock()
        module = point.load()
        seconds = self._clock() - start
        if not isinstance(module, ModuleType):
            raise TypeError(
                f"entry point {point.value!r} must name a module, "
                f"not an object of type {type(module).__name__}"
            )
        if seconds > SLOW_IMPORT:
            message = (
                f"its import took {seconds:.1f} s: import the engine in the factory, "
                f"not in {point.value!r}"
            )
            self.problems.append(origin.problem("slow", message))
        return module

    def _register(self, origin: Origin, module: ModuleType) -> None:
        name = origin.qualified
        if other := self._manager.get_name(module):
            raise ValueError(f"module {module.__name__!r} is already plugin {other!r}")
        if self._manager.has_plugin(name):
            raise ValueError(f"{GROUP!r} of its distribution names it twice")
        try:
            self._manager.register(module, name=name)
            self._check_hooks(module)
        except BaseException:
            # before 1.7, pluggy keeps the half of a plugin that it had accepted
            self._manager.unregister(name=name)
            raise
        self._plugins[name] = origin, module

    def _check_hooks(self, module: ModuleType) -> None:
        callers = self._manager.get_hookcallers(module)
        if not callers:
            raise ValueError(
                f"module {module.__name__!r} implements no hook: "
                "decorate its functions with llmcore.hookspecs.hookimpl"
            )
        known = [name for name in vars(hookspecs) if name.startswith("llmcore_")]
        for caller in callers:
            implementations = [i for i in caller.get_hookimpls() if i.plugin is module]
            if not caller.has_spec() and not all(
                implementation.optionalhook for implementation in implementations
            ):
                hint = did_you_mean(caller.name, known)
                raise ValueError(f"unknown hook {caller.name!r}{hint}")

    def _ask(self, origin: Origin, module: ModuleType) -> None:
        results = self._caller("llmcore_backend_info", module)()
        assert isinstance(results, list)
        for result in results:
            for info in result if isinstance(result, list | tuple) else [result]:
                with self._guard(origin, "validate"):
                    self._add(origin, info)

    def _add(self, origin: Origin, info: object) -> None:
        if not isinstance(info, BackendInfo):
            raise TypeError(
                "llmcore_backend_info must return a BackendInfo or a list of them, "
                f"got {info!r}"
            )
        obstacle = find_obstacle(info, origin)
        # an extra that nobody installed is no fault of the plugin
        if obstacle is not None and obstacle.stage != "missing":
            self.problems.append(obstacle)
        self.registered.append(
            Registered(
                info=info,
                distribution=origin.distribution,
                entry_point=origin.plugin,
                problem=obstacle,
            )
        )

    def find_conflicts(self) -> None:
        """Report every claim to a name that has more than one."""
        for mine in self.registered:
            rivals = [
                r for r in self.registered if r.name == mine.name and r is not mine
            ]
            if rivals:
                origin = Origin(plugin=mine.entry_point, distribution=mine.distribution)
                others = ", ".join(rival.qualified for rival in rivals)
                message = (
                    f"backend {mine.name!r} is also claimed by {others}: "
                    f"ask for {mine.qualified!r} or uninstall one"
                )
                self.problems.append(origin.problem("conflict", message))

    def find_sources(self) -> Mapping[str, RegisteredSource]:
        """Ask every plugin for its schemes; a scheme with two claims is nobody's."""
        claims: list[RegisteredSource] = []
        for origin, ask in self.callers("llmcore_model_sources"):
            with self._guard(origin, "source"):
                claims += self._claims(origin, ask())
        times = Counter([*SCHEMES, *(claim.info.scheme for claim in claims)])
        for claim in claims:
            if times[scheme := claim.info.scheme] > 1:
                whose = "core's" if scheme in SCHEMES else "claimed more than once"
                message = f"the scheme {scheme!r} of its model source is {whose}"
                self.problems.append(claim.origin.problem("conflict", message))
        return {c.info.scheme: c for c in claims if times[c.info.scheme] == 1}

    def _claims(self, origin: Origin, results: object) -> Iterator[RegisteredSource]:
        assert isinstance(results, list)
        for result in results:
            for info in result if isinstance(result, list | tuple) else [result]:
                if not isinstance(info, SourceInfo):
                    raise TypeError(
                        "llmcore_model_sources must return a SourceInfo or a list of "
                        f"them, got {info!r}"
                    )
                yield RegisteredSource(info=info, origin=origin)

    def callers(self, hook: str) -> Iterator[tuple[Origin, Caller]]:
        """Each implementation of a hook by itself, in the order of pluggy's call."""
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        for name in dict.fromkeys(i.plugin_name for i in reversed(implementations)):
            origin, module = self._plugins[name]
            yield origin, self._caller(hook, module)

    def _caller(self, hook: str, plugin: ModuleType) -> Caller:
        others = self._manager.get_plugins() - {plugin}
        return self._manager.subset_hook_caller(hook, others)
