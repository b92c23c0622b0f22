"""The installed backends: found once at first use, imported when they are created."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING

from llmcore.errors import (
    AmbiguousBackendError,
    BackendUnavailableError,
    ForkError,
    PluginErrorGroup,
    UnknownBackendError,
)
from llmcore.plugins.selection import Selection, candidate, check, choose
from llmcore.plugins.values import (
    CORE,
    FAILED,
    BackendRequest,
    Origin,
    PluginProblem,
    Registered,
    RegisteredSource,
    ResourceEvent,
    Stage,
    Trial,
    Verdict,
)
from llmcore.plugins.wording import describe, did_you_mean

if TYPE_CHECKING:
    from llmcore.plugins.loading import Caller, Clock, Loaded
    from llmcore.plugins.trials import Believe, Trials
    from llmcore.spi import Backend

logger = logging.getLogger("llmcore.plugins")

STRICT = "LLMCORE_STRICT_PLUGINS"


class Registry:
    """
    All installed backends and what is wrong with them.

    Finds the plugins at the first use of any member, once, and keeps the result until
    `reload`. Every member can be used from any thread.

    Args:
        clock: Seconds, to time the imports of plugins.

        trials: Where backends are tried; by default with the memory of this user.
    """

    def __init__(
        self, *, clock: Clock = time.perf_counter, trials: Trials | None = None
    ) -> None:
        self._clock = clock
        self._own_trials = trials
        self._loading = threading.RLock()
        self._reporting = threading.Lock()
        self._inside = False
        self._loaded: Loaded | None = None
        self._later: dict[tuple[Origin, Stage], PluginProblem] = {}
        self._listeners: Sequence[tuple[Origin, Caller]] = ()
        self.watchers: Sequence[tuple[Origin, Caller]] = ()  # of telemetry
        self.on_load: Callable[[], object] = lambda: None

    # -- loading ---------------------------------------------------------------------

    def reload(self) -> None:
        """
        Find the plugins again; for programs that install some while they run.

        Modules that were imported stay as they are.

        Raises:
            PluginErrorGroup: See `backends`; the registry stays as it was.
        """
        from llmcore.plugins.discovery import forget_what_was_found

        forget_what_was_found()
        self._load(again=True)

    def _load(self, *, again: bool = False) -> Loaded:
        if (loaded := self._loaded) is not None and not again:
            return loaded
        with self._loading:
            if self._loaded is not None and not again:
                return self._loaded
            loaded = self._load_once()
            self._loaded, self._later = loaded, {}
            self._listeners, self.watchers = loaded.listeners, loaded.watchers
            self.on_load()
        for problem in loaded.problems:
            logger.warning("%s", problem)
        return loaded

    def _load_once(self) -> Loaded:
        from llmcore.plugins.loading import load  # brings pluggy

        if self._inside:
            raise RuntimeError(
                "plugins are being loaded: one of them asks for backends"
            )
        self._inside = True
        try:
            loaded = load(self._clock, self._trials)
        finally:
            self._inside = False
        if os.environ.get(STRICT, "0") not in {"", "0"}:
            _raise_all(loaded.problems)
        return loaded

    # -- what there is ---------------------------------------------------------------

    @property
    def backends(self) -> Mapping[str, Registered]:
        """
        The installed backends by the name to ask for, in the order of the names.

        That is the qualified name where several distributions claim the same one.

        Raises:
            PluginErrorGroup: A plugin has a problem and ``LLMCORE_STRICT_PLUGINS=1``.
        """
        registered = self._load().registered
        names = [backend.name for backend in registered]
        named = {
            backend.name
            if names.count(backend.name) == 1
            else backend.qualified: backend
            for backend in registered
        }
        return MappingProxyType(dict(sorted(named.items())))

    @property
    def problems(self) -> list[PluginProblem]:
        """What is wrong with plugins, in the order it was found; a copy."""
        problems = self._load().problems
        with self._reporting:
            return [*problems, *self._later.values()]

    @property
    def sources(self) -> Mapping[str, RegisteredSource]:
        """The schemes of model sources that plugins add; a scheme has one of them."""
        return self._load().sources

    def get(self, name: str) -> Registered:
        """
        The backend of that name, or of ``"distribution:name"``; imports nothing.

        Raises:
            UnknownBackendError: No plugin provides it.

            AmbiguousBackendError: Several do.

            BackendUnavailableError: It is installed but cannot be used; the message
                says what to install. If its plugin raised something, it is the cause.
        """
        matches = [r for r in self._load().registered if _is_named(name, r)]
        if len(matches) > 1:
            claims = " or ".join(sorted(repr(match.qualified) for match in matches))
            raise AmbiguousBackendError(
                f"backend {name!r} is provided more than once: ask for {claims}"
            )
        if not matches:
            raise self._absent(name)
        if problem := matches[0].problem:
            raise BackendUnavailableError(problem.message)
        return matches[0]

    def create(self, name: str) -> Backend:
        """
        Import the backend's factory and call it; each call gives a new instance.

        Raises:
            BackendUnavailableError: That failed; the cause says how. The next call
                tries again.

            ForkError: The engine was started in a parent process.

            LookupError: As `get`.
        """
        from llmcore.spi import Backend

        backend = self.get(name)
        factory = backend.info.factory
        try:
            module, _, attribute = factory.partition(":")
            made = attrgetter(attribute)(importlib.import_module(module))()
            if not isinstance(made, Backend):
                raise TypeError(f"not a llmcore.spi.Backend: {type(made).__name__}")
        except (KeyboardInterrupt, ForkError):
            raise
        except BaseException as error:
            raise BackendUnavailableError(
                f"backend {backend.name!r} cannot be created, its factory {factory!r} "
                f"failed: {describe(error)}: reinstall or fix {backend.distribution}"
            ) from error
        return made

    def _absent(self, name: str) -> Exception:
        """The error for a name that nothing is registered under."""
        loaded = self._load()
        for problem in loaded.problems:
            origin = Origin(plugin=problem.plugin, distribution=problem.distribution)
            if problem.stage in FAILED and name in {origin.plugin, origin.qualified}:
                error = BackendUnavailableError(
                    f"backend {name!r} cannot be used, {problem}: "
                    f"reinstall or fix {problem.distribution}"
                )
                error.__cause__ = problem.exception
                return error
        for origin, variable in loaded.disabled:
            if name in {origin.plugin, origin.qualified}:
                return BackendUnavailableError(
                    f"backend {name!r} is switched off by the environment variable "
                    f"{variable}: change it and start again"
                )
        installed = list(self.backends)
        return UnknownBackendError(
            f"no installed plugin provides a backend named {name!r}"
            f"{did_you_mean(name, installed)} (installed: "
            f"{', '.join(installed) or 'none'})"
        )

    # -- trying ----------------------------------------------------------------------

    @property
    def _trials(self) -> Trials:
        with self._loading:
            if self._own_trials is None:
                from llmcore.plugins.trials import Trials

                self._own_trials = Trials()
            return self._own_trials

    def try_out(self, name: str) -> Trial:
        """
        Start a backend in a child process once more, whatever is known of it.

        Raises:
            LookupError, BackendUnavailableError: As `get`.
        """
        return self._try(self.get(name), "nothing")

    def _try(self, backend: Registered, believe: Believe = "file") -> Trial:
        built_in = backend.distribution == CORE and not backend.info.requires
        if built_in and believe != "nothing":
            return Trial(untried="it is a part of llmcore and loads nothing else")
        from llmcore.plugins.compatibility import distribution_of

        return self._trials.of(
            backend.info.factory,
            {backend.distribution, *map(distribution_of, backend.info.requires)},
            believe=believe,
        )

    # -- choosing --------------------------------------------------------------------

    def select(self, request: BackendRequest) -> Registered:
        """
        The backend for a request: the one it names, or for ``"auto"`` the one that the
        application's policy takes, else core's own.

        One that brings foreign code was started in a child process before, now or
        earlier, and that ended well.

        Raises:
            BackendUnavailableError: It, or each, cannot be used; says why.

            CapabilityError: The one that is named does not declare what is required.

            AmbiguousBackendError: Several can be used and nothing prefers one.

            UnknownBackendError: No plugin provides the one that is named.
        """
        if request.backend != "auto":
            return self._named(request)
        selection = self._select(request)
        if selection.chosen is None:
            assert selection.error is not None
            raise selection.error
        return selection.chosen

    def explain(self, request: BackendRequest) -> list[Verdict]:
        """Why ``"auto"`` would be each backend or not, failed plugins included."""
        failed = [
            Verdict(name=problem.plugin, chosen=False, reason=problem.message)
            for problem in self._load().problems
            if problem.stage in FAILED
        ]
        switched_off = [
            Verdict(
                name=origin.plugin, chosen=False, reason=f"switched off by {variable}"
            )
            for origin, variable in self._load().disabled
        ]
        return [*self._select(request).verdicts, *failed, *switched_off]

    def _named(self, request: BackendRequest) -> Registered:
        backend = self.get(request.backend)
        trial = self._try(backend)
        try:
            check(request, backend, trial)
        except BackendUnavailableError:
            if not trial.remembered:
                raise
            check(request, backend, self._try(backend, "process"))
        return backend

    def _select(self, request: BackendRequest) -> Selection:
        selection = choose(request, self.backends, self._policy, self._try)
        if selection.chosen is None:
            # What an earlier process remembers is no reason to give up.
            try_out = partial(self._try, believe="process")
            selection = choose(request, self.backends, self._policy, try_out)
        return selection

    def _policy(
        self, request: BackendRequest, candidates: Sequence[Registered]
    ) -> Registered | None:
        for origin, ask in self._load().policies:
            try:
                answer = ask(request=request, candidates=tuple(candidates))
                if answer is not None:
                    return candidate(answer, candidates)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self.report(origin, "select", error)
        return None

    # -- watching --------------------------------------------------------------------

    def emit(
        self,
        kind: str,
        step: str,
        label: str,
        id: int,
        parent_id: int | None = None,
    ) -> None:
        """
        Tell the plugins about a `ResourceEvent`; raises nothing of theirs.

        Returns at once if no plugin listens, or plugins have not been loaded: it never
        loads them.
        """
        if not self._listeners:
            return
        event = ResourceEvent(
            kind=kind, step=step, label=label, id=id, parent_id=parent_id
        )
        for origin, tell in self._listeners:
            try:
                tell(event=event)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self.report(origin, "event", error)

    def report(self, origin: Origin, stage: Stage, error: BaseException) -> None:
        """Record and log a failing hook, but only its first failure."""
        with self._reporting:
            if (origin, stage) in self._later:
                return
            problem = origin.problem(
                stage, f"its hook failed: {describe(error)}", error
            )
            self._later[origin, stage] = problem
        logger.warning("%s", problem)


def _is_named(name: str, backend: Registered) -> bool:
    return name in {backend.name, backend.qualified}


def _raise_all(problems: Sequence[PluginProblem]) -> None:
    """Raise every problem but slowness, which says more about the machine."""
    errors: list[Exception] = []
    for problem in problems:
        if problem.stage != "slow":
            error = BackendUnavailableError(str(problem))
            error.__cause__ = problem.exception
            errors.append(error)
    if errors:
        raise PluginErrorGroup(f"{STRICT} is set and plugins have problems", errors)
