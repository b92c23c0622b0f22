"""The source ``hf:``: a hub that speaks the protocol of ``huggingface.co``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from attrs import evolve, frozen

from llmcore.errors import DownloadError, SourceNotFoundError
from llmcore.sources.hub_cache import HubCache
from llmcore.sources.hub_client import Hub, HubFile, Listing, library
from llmcore.sources.provider import ModelSource, Request, with_local_header
from llmcore.sources.ranges import remote_header
from llmcore.sources.source import Source
from llmcore.sources.split import parts_of
from llmcore.sources.transfer import Remote, download
from llmcore.sources.values import Located, ModelFile, Resolved
from llmcore.telemetry import Subject, span

logger = logging.getLogger("llmcore.sources")

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubSource(ModelSource):
    """Files of repositories, kept in the cache that `huggingface_hub` shares."""

    def resolve(self, source: Source, request: Request) -> Resolved:
        wanted = _wanted(source, request)
        found = wanted.ask()
        return found if isinstance(found, Resolved) else wanted.fetch(found)

    def header(self, source: Source, request: Request) -> Located:
        wanted = _wanted(source, request)
        found = wanted.ask()
        if isinstance(found, Resolved):
            return with_local_header(found)
        return wanted.look(found)


def _wanted(source: Source, request: Request) -> _Wanted:
    source = evolve(source, revision=request.revision or source.revision)
    client, token = library(source), request.token
    if not isinstance(token, str):
        token = None if token is False else client.get_token()
    hub = Hub(source=source, library=client, token=token)
    root = request.cache_dir or Path(client.constants.HF_HUB_CACHE)
    return _Wanted(
        request=request,
        hub=hub,
        cache=HubCache(root=root, repository=hub.repository, library=client),
        names=parts_of(source.name.split("/", 2)[2]),
        revision=source.revision or "main",
    )


@frozen(kw_only=True)
class _Wanted:
    """The files of one model on a hub; lives for one request."""

    request: Request
    hub: Hub
    cache: HubCache
    names: list[str]
    revision: str

    def ask(self) -> Listing | Resolved:
        """What the hub has, or what is here if it need not or cannot be asked."""
        here = None if self.request.force else self._here(self.revision)
        if here and (self.request.offline or _COMMIT.fullmatch(self.revision)):
            return here
        if self.request.offline:
            raise SourceNotFoundError(
                self.hub.source,
                f"it is not in {str(self.cache.root)!r} and this is offline: fetch it "
                "while online",
            )
        try:
            return self.hub.listing(self.revision)
        except DownloadError as error:
            if here is None:
                raise
            logger.warning("%s; using what was fetched earlier", error)
            return evolve(here, checked=False)

    def _here(self, revision: str) -> Resolved | None:
        """What the cache has of a revision, if that is all of it."""
        paths = self.cache.find(self.names, revision)
        if paths is None:
            return None
        return Resolved(
            source=self.hub.source,
            path=paths[0],
            files=tuple(map(_cached_file, self.names, paths)),
            commit=self.cache.commit_of(paths[0]),
        )

    def look(self, listing: Listing) -> Located:
        """The header, from the cache or from the hub."""
        files = self.hub.pick(listing, self.names)
        if here := self._here(listing.commit):
            return with_local_header(here)
        return Located(
            source=self.hub.source,
            files=tuple(
                _model_file(file, self.cache.place(file, listing.commit))
                for file in files
            ),
            commit=listing.commit,
            header=remote_header(self._remotes(listing, files), self.request),
        )

    def fetch(self, listing: Listing) -> Resolved:
        """Bring what is not in the cache, and name it there."""
        files = self.hub.pick(listing, self.names)
        lacking = [f for f in files if not self._is_here(f, listing.commit)]
        total, done = sum(file.size for file in lacking), 0
        paths = []
        with self._told(total), self._writing():
            for remote in self._remotes(listing, files):
                paths.append(self._bring(remote, done, total))
                done += remote.file.size if remote.file in lacking else 0
            self.cache.remember(self.revision, listing.commit)
        return Resolved(
            source=self.hub.source,
            path=paths[0],
            files=tuple(map(_model_file, files, paths)),
            commit=listing.commit,
        )

    def _told(self, total: int) -> AbstractContextManager[object]:
        if not total:
            return nullcontext()
        subject = Subject(kind="source", label=str(self.hub.source))
        return span("download", subject, bytes=total)

    def _bring(self, remote: Remote, done: int, total: int) -> Path:
        def report(arrived: int) -> None:
            self.request.report(done + arrived, total)

        file, commit = remote.file, remote.commit
        if self._is_here(file, commit) and (path := self.cache.named(file, commit)):
            return path  # without a lock: the cache may be for reading only
        with self.cache.locked(file, waiting=lambda: report(0)):
            # Whoever had the lock may have brought it.
            if not self._is_here(file, commit):
                download(remote, self.cache.blob(file), self.request, report)
            return self.cache.link(file, commit)

    def _is_here(self, file: HubFile, commit: str) -> bool:
        return not self.request.force and self.cache.place(file, commit) is not None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.request.reraise()
            raise DownloadError(
                self.hub.source,
                f"cannot write into {str(self.cache.root)!r}: "
                f"{(error.strerror or str(error)).lower()}",
            ) from error

    def _remotes(self, listing: Listing, files: Sequence[HubFile]) -> list[Remote]:
        return [Remote(hub=self.hub, file=f, commit=listing.commit) for f in files]


def _model_file(file: HubFile, path: Path | None = None) -> ModelFile:
    return ModelFile(
        name=file.name, size=file.size, path=path, sha256=_checksum(file.hash)
    )


def _cached_file(name: str, path: Path) -> ModelFile:
    return ModelFile(
        name=name,
        size=path.stat().st_size,
        path=path,
        sha256=_checksum(path.resolve().name),
    )


def _checksum(hash: str) -> str | None:
    """A hash if it is that of the content alone."""
    return hash if _SHA256.fullmatch(hash) else None
