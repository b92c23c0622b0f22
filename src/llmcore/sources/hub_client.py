"""
The hub's protocol, through the client library `huggingface_hub`.

The library's own download is not used: since its version 2 it throws away what a cut
download has fetched, and it tells nobody about progress in bytes. Its session, its
tokens, its errors and its cache are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from attrs import field, frozen

from llmcore.errors import (
    DownloadError,
    SourceAccessError,
    SourceError,
    SourceNotFoundError,
)
from llmcore.plugins.wording import describe, did_you_mean
from llmcore.sources.source import Source

HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PASSING = frozenset({None, 408, 429, 500, 502, 503, 504})
"""Statuses that another try may not meet again; None is a cut connection."""

OLDEST = 1
"""The first major version of the library whose session can stream."""


def library(source: Source) -> Any:
    """
    The module ``huggingface_hub``.

    Raises:
        SourceError: It is not installed, or too old.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise SourceError(
            source,
            "this needs huggingface_hub: pip install 'llmcore-runtime[hub]'",
        ) from error
    if int(huggingface_hub.__version__.split(".")[0]) < OLDEST:
        raise SourceError(
            source,
            f"huggingface_hub {huggingface_hub.__version__} is too old: "
            "pip install --upgrade 'llmcore-runtime[hub]'",
        )
    return huggingface_hub


@frozen(kw_only=True)
class HubFile:
    """
    A file of a repository.

    Attributes:
        name: Its name there.

        size: Bytes.

        hash: Names its content: the SHA-256 of a large file, git's own SHA-1 of one
            that git keeps itself.
    """

    name: str
    size: int
    hash: str


@frozen(kw_only=True)
class Listing:
    """What a repository holds at one commit."""

    commit: str
    files: Mapping[str, HubFile]


@frozen(kw_only=True)
class Hub:
    """
    One repository on a hub, and who asks for it.

    Attributes:
        source: What was asked for, for errors.

        library: The module ``huggingface_hub``.
    """

    source: Source
    library: Any = field(repr=False)
    token: str | None = field(repr=False)

    @property
    def endpoint(self) -> str:
        """Address of the hub."""
        given: str = os.environ.get("HF_ENDPOINT") or self.library.constants.ENDPOINT
        return given.rstrip("/")

    @property
    def repository(self) -> str:
        """``"owner/name"``."""
        return "/".join(self.source.name.split("/")[:2])

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        from llmcore import __version__

        about = {
            "user-agent": f"llmcore/{__version__}",
            # What is compressed on the way has no size, and no parts.
            "accept-encoding": "identity",
        }
        return about | ({"authorization": f"Bearer {self.token}"} if self.token else {})

    def url(self, commit: str, file: str) -> str:
        """Address of a file at a commit; redirects to where the bytes are."""
        return f"{self.endpoint}/{self.repository}/resolve/{commit}/{quote(file)}"

    def listing(self, revision: str) -> Listing:
        """
        Ask what the repository holds.

        Raises:
            SourceError: As `explained`.
        """
        address = f"{self.endpoint}/api/models/{self.repository}/revision/"
        with self.explained(revision):
            answer = self.library.utils.get_session().get(
                address + quote(revision, safe=""),
                params={"blobs": "true"},
                headers=self.headers,
                timeout=self.library.constants.HF_HUB_ETAG_TIMEOUT,
            )
            self.library.utils.hf_raise_for_status(answer)
        try:
            return _listing(answer.json())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DownloadError(
                self.source,
                f"the answer of {self.endpoint} cannot be understood: is HF_ENDPOINT "
                "the address of a hub?",
            ) from error

    @contextmanager
    def explained(self, revision: str) -> Iterator[None]:
        """
        Say what an error of the library means.

        Raises:
            DownloadError: The hub cannot be reached or cannot answer now.

            SourceNotFoundError: There is no such repository, revision or file.

            SourceAccessError: It needs a token, or another one.
        """
        try:
            yield
        except self.library.errors.OfflineModeIsEnabled as error:
            raise SourceNotFoundError(
                self.source, "it is not here and HF_HUB_OFFLINE is set: unset it"
            ) from error
        except self.library.errors.HfHubHTTPError as error:
            raise self._refusal(error, revision) from error
        except self.library.errors.HTTPError as error:
            raise DownloadError(
                self.source, f"{self.endpoint} cannot be reached: {describe(error)}"
            ) from error

    def may_pass(self, error: DownloadError) -> bool:
        """Whether another try may succeed where this one was cut off."""
        cause = error.__cause__
        status = getattr(getattr(cause, "response", None), "status_code", None)
        is_of_network = isinstance(cause, self.library.errors.HTTPError)
        return is_of_network and status in _PASSING

    def _refusal(self, error: Any, revision: str) -> SourceError:
        errors, status = self.library.errors, error.response.status_code
        what = f"repository {self.repository!r}"
        if isinstance(error, errors.GatedRepoError) or status == 403:
            return SourceAccessError(self.source, f"the {what} {self._way_in()}")
        if isinstance(error, errors.RevisionNotFoundError):
            return SourceNotFoundError(
                self.source, f"the {what} has no revision {revision!r}"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            hidden = (
                "or the token may not see it"
                if self.token
                else "or it is private: pass token= or set HF_TOKEN"
            )
            return SourceNotFoundError(self.source, f"there is no {what}, {hidden}")
        if status == 401:
            return SourceAccessError(
                self.source, f"{self.endpoint} does not accept the token: renew it"
            )
        if status in (404, 410):
            return SourceNotFoundError(self.source, f"the {what} has no such file")
        return DownloadError(
            self.source, f"{self.endpoint} answered with status {status}: try later"
        )

    def _way_in(self) -> str:
        page = f"{self.endpoint}/{self.repository}"
        if self.token:
            return f"is not open to this token: ask for access at {page}"
        return f"is gated: ask for access at {page}, then pass token= or set HF_TOKEN"

    def pick(self, listing: Listing, names: Sequence[str]) -> list[HubFile]:
        """
        The files of a model.

        Raises:
            SourceNotFoundError: One is not there; names those that come near.
        """
        for name in names:
            if name not in listing.files:
                models = [file for file in listing.files if file.endswith(".gguf")]
                raise SourceNotFoundError(
                    self.source,
                    f"the repository {self.repository!r} has no file {name!r}"
                    f"{did_you_mean(name, models)} (models there: "
                    f"{', '.join(sorted(models)[:20]) or 'none in GGUF'})",
                )
        return [listing.files[name] for name in names]


def _listing(answer: Any) -> Listing:
    files = [_file(entry) for entry in answer["siblings"]]
    return Listing(
        commit=_hash(answer["sha"]), files={file.name: file for file in files}
    )


def _file(entry: Any) -> HubFile:
    large = entry.get("lfs")
    content = large["sha256"] if large else entry["blobId"]
    size = large["size"] if large else entry["size"]
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"not a size: {size!r}")
    return HubFile(name=str(entry["rfilename"]), size=size, hash=_hash(content))


def _hash(text: Any) -> str:
    """A hash; it becomes the name of a file, so nothing else will do."""
    if not HEX.fullmatch(text):
        raise ValueError(f"not a hash: {text!r}")
    return str(text)
