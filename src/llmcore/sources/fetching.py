"""
From the name of a model to its file, or to its header: what applications call.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from llmcore.errors import LlmcoreError, ParameterError, SourceError
from llmcore.plugins import RegisteredSource, registry
from llmcore.plugins.wording import describe
from llmcore.sources.provider import ModelSource, Request
from llmcore.sources.source import Source, checked_revision
from llmcore.sources.values import Located, Progress, Resolved
from llmcore.twins import unless_cancelled

_CORE = {
    "hf": "llmcore.sources.hub:HubSource",
    "path": "llmcore.sources.paths:PathSource",
}

Name = str | os.PathLike[str] | Source
T = TypeVar("T", bound=Located)


def resolve(
    source: Name,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    force: bool = False,
    offline: bool | None = None,
) -> Resolved:
    """
    Bring a model to this machine, unless it is here, and say where it is.

    All files of a split model are fetched. A download that was cut off goes on where
    it ended, now or in the next call, and what arrives is compared with the checksum
    that the hub names. Several threads and processes may ask for the same model: one
    fetches it and the others wait. Blocks; any thread.

    Args:
        source: See `Source.parse`.

        progress: Called in this thread while something is fetched, and only then, with
            a `Share`; returning False cancels.

        cancel: Set it from any thread to cancel.

        cache_dir: Where a hub's files are kept; the cache that `huggingface_hub` and
            other programs share if None.

        token: For what is not public; the one that is stored or in ``HF_TOKEN`` if
            None, and False for none.

        revision: Branch, tag or commit, if the source does not name it.

        force: Fetch again what is here.

        offline: Use only what is here; as ``HF_HUB_OFFLINE`` says if None.

    Raises:
        ParameterError: The source cannot be a name, or names another revision.

        SourceNotFoundError: It does not exist, or is not here and this is offline.

        SourceAccessError: It needs a token, or another one.

        DownloadError: The hub cannot be reached, the download was cut off more often
            than it was worth trying again, is not what was announced, or finds no
            room; says what to do.

        OperationCancelledError: It was cancelled; what was fetched is kept.
    """
    request = _request(
        revision, cache_dir, token, force, offline, progress=progress, cancel=cancel
    )
    return _ask(
        source, request, lambda made, name: made.resolve(name, request), Resolved
    )


def header(
    source: Name,
    *,
    cancel: threading.Event | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    offline: bool | None = None,
) -> Located:
    """
    Find the header and the size of a model without fetching it.

    On a hub that costs a few requests for the first megabytes; a file that is here is
    read here. With `Located.size` and `Located.missing` this is what there is to know
    before a download. Blocks; any thread.

    Args:
        source: See `Source.parse`.

        cancel, cache_dir, token, revision, offline: As for `resolve`.

    Raises:
        ModelLoadError: It is a GGUF file, but not a sound one; or as `resolve`.
    """
    request = _request(revision, cache_dir, token, False, offline, cancel=cancel)
    return _ask(source, request, lambda made, its: made.header(its, request), Located)


async def aresolve(
    source: Name, *, progress: Progress | None = None, **options: Any
) -> Resolved:
    """
    `resolve` without blocking the event loop; cancelling the task cancels it.

    ``progress`` is called in a worker thread.
    """
    cancel = options.pop("cancel", None) or threading.Event()
    fetch = partial(resolve, source, progress=progress, cancel=cancel, **options)
    return await unless_cancelled(fetch, cancel.set)


def _request(
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | bool | None,
    force: bool,
    offline: bool | None,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Request:
    if offline is None:
        said = os.environ.get("HF_HUB_OFFLINE", "").upper()
        offline = said in {"1", "ON", "YES", "TRUE"}
    if force and offline:
        raise ParameterError("force=True fetches again, which offline=True forbids")
    return Request(
        revision=revision,
        cache_dir=None if cache_dir is None else Path(cache_dir).expanduser(),
        token=token,
        force=force,
        offline=offline,
        progress=progress,
        cancel=cancel or threading.Event(),
    )


def _ask(
    name: Name,
    request: Request,
    question: Callable[[ModelSource, Source], T],
    answer: type[T],
) -> T:
    source = Source.parse(name)
    if request.revision is not None:
        checked_revision(request.revision, source)
        if source.revision not in (None, request.revision):
            raise ParameterError(
                f"source {str(source)!r} and revision={request.revision!r} differ: "
                "leave one of the two out"
            )
    if source.scheme in _CORE:
        return question(_made(_CORE[source.scheme]), source)
    plugin = registry().sources[source.scheme]
    with _guard(plugin, source, request):
        found = question(_made(plugin.info.factory), source)
        if not isinstance(found, answer):
            raise TypeError(f"not a {answer.__name__}: {found!r}")
        return found


@cache
def _made(factory: str) -> ModelSource:
    module, _, attribute = factory.partition(":")
    made = attrgetter(attribute)(importlib.import_module(module))()
    if not isinstance(made, ModelSource):
        raise TypeError(f"not a llmcore.sources.ModelSource: {type(made).__name__}")
    return made


@contextmanager
def _guard(
    plugin: RegisteredSource, source: Source, request: Request
) -> Iterator[None]:
    """Turn what a plugin raises into a `SourceError` that names it."""
    try:
        yield
    except LlmcoreError:
        raise
    except Exception as error:
        request.reraise()
        raise SourceError(
            source,
            f"the plugin {plugin.origin.qualified} failed: {describe(error)}",
        ) from error
