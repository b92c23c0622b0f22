"""
`LoadOptions`: how one model is to be kept resident.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import Attribute, field, fields_dict, frozen

from llmcore.params.validators import flag, integer, number, one_of
from llmcore.values import ContextParams, ModelParams, evolve

CAPABILITIES = ("generate", "chat", "embed")

Mode = Literal["server", "direct"]

SERVER_CONTEXT = ContextParams(sequences=4)
"""What a server is made with where the caller says nothing else."""


def _chosen(names: str | Iterable[str]) -> frozenset[str]:
    return frozenset([names] if isinstance(names, str) else names)


def _known(
    instance: object, attribute: Attribute[Any], value: frozenset[object]
) -> None:
    unknown = value - set(CAPABILITIES)
    if unknown or not value:
        raise ValueError(
            f"capabilities must be some of {', '.join(CAPABILITIES)}, got "
            f"{sorted(map(str, value))}"
        )


def _seconds(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        number(0)(instance, attribute, value)


@frozen(kw_only=True)
class LoadOptions:
    """
    How one model is to be kept resident.

    Args:
        capabilities: What it is for: some of ``"generate"``, ``"chat"``, ``"embed"``.

        mode: ``"server"`` keeps one context that all requests share: they are batched,
            and find what earlier ones left in the cache. ``"direct"`` makes a context
            for each request, and is what embeddings need; it is chosen for them.

        default: Make it the model of requests that name none.

        pin: Never evict it.

        keep_alive: Unload it when no request used it for so many seconds; None keeps
            it.

        reserve: Bytes of RAM to reserve for it before it is loaded, instead of the
            estimate; for files whose header does not tell.

        max_queue: How many requests may wait for a free sequence; one more gets
            `QueueFullError`.

        request_timeout: Seconds that a request waits for a free sequence, at most.

        restarts: How often it is loaded again after its engine crashed, within a
            minute.

        backend: See `get_llama`; so are ``gpu``, ``isolation``, ``restart`` and
            ``watchdog``.

        model: How to load it.

        context: How to create its context.

        pinned_fields: Fields of these two that the caller gave, which nothing changes.

        source: Options of the source, such as ``revision`` or ``token``.
    """

    capabilities: frozenset[str] = field(
        default=frozenset({"generate", "chat"}), converter=_chosen, validator=_known
    )
    mode: Mode = field(validator=one_of("server", "direct"))
    default: bool = field(default=False, validator=flag)
    pin: bool = field(default=False, validator=flag)
    keep_alive: float | None = field(default=None, validator=_seconds)
    reserve: int | None = field(default=None, validator=integer(0, 2**62, None))
    max_queue: int = field(default=64, validator=integer(0))
    request_timeout: float = field(default=60.0, validator=number(0))
    restarts: int = field(default=3, validator=integer(0))
    engine: Mapping[str, Any] = field(factory=dict)
    model: ModelParams = field(factory=ModelParams)
    context: ContextParams = SERVER_CONTEXT
    pinned_fields: frozenset[str] = frozenset()
    source: Mapping[str, Any] = field(factory=dict, repr=False)  # may hold a token

    @mode.default
    def _choose_mode(self) -> Mode:
        return "direct" if "embed" in self.capabilities else "server"

    def __attrs_post_init__(self) -> None:
        if self.mode == "server" and "embed" in self.capabilities:
            raise ValueError(
                "a server cannot embed: load the model for embeddings alone, with "
                "capabilities=['embed'], under an id of its own"
            )

    @property
    def first_context(self) -> ContextParams | None:
        """Of the context that is made when the model is loaded, if one is."""
        if self.mode == "server":
            return self.context
        if "embed" in self.capabilities:
            return evolve(self.context, sequences=1, embeddings=True)
        return None

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> LoadOptions:
        """
        Sort single options into what they are about.

        Raises:
            TypeError: An option is unknown; names it and the ones there are.

            ValueError: One is out of range, or two do not go together.
        """
        own = {name for name in fields_dict(cls) if name not in _GROUPS}
        groups: dict[str, dict[str, Any]] = {name: {} for name in _GROUPS}
        flat: dict[str, Any] = {}
        for name, value in options.items():
            group = next((g for g in _GROUPS if name in _GROUPS[g]), None)
            if group is not None:
                groups[group][name] = value
            elif name in own:
                flat[name] = value
            else:
                known = sorted(own.union(*_GROUPS.values()) - {"pinned_fields"})
                raise TypeError(
                    f"there is no option {name!r}: there are {', '.join(known)}"
                )
        context = {"sequences": SERVER_CONTEXT.sequences, **groups["context"]}
        return cls(
            **flat,
            engine=groups["engine"],
            source=groups["source"],
            model=ModelParams(**groups["model"]),
            context=ContextParams(**context),
            pinned_fields=frozenset(groups["model"]) | frozenset(groups["context"]),
        )


_GROUPS: Mapping[str, frozenset[str]] = {
    "engine": frozenset({"backend", "gpu", "isolation", "restart", "watchdog"}),
    "source": frozenset({"cache_dir", "token", "revision", "force", "offline"}),
    "model": frozenset(fields_dict(ModelParams)),
    "context": frozenset(fields_dict(ContextParams)),
}
