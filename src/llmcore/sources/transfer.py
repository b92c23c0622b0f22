"""
Brings bytes from an address: goes on where a connection was cut, and checks the end.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from attrs import define, frozen

from llmcore.errors import DownloadError
from llmcore.sources.hub_client import Hub, HubFile
from llmcore.sources.provider import Request

RETRIES = 5
"""Tries in a row that bring nothing before a download is given up."""

PAUSE = 0.5
"""Seconds before the first of them; each next pause is twice as long."""

PARTIAL = ".llmcore-partial"
"""Ends the name of a file that is not complete."""

_MIB = 2**20


@frozen(kw_only=True)
class Remote:
    """A file of a repository at a commit."""

    hub: Hub
    file: HubFile
    commit: str

    def failed(self, reason: str) -> DownloadError:
        """The error for a file that cannot be had."""
        return DownloadError(self.hub.source, f"{self.file.name}: {reason}")

    @contextmanager
    def opened(
        self, start: int, stop: int | None = None
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """
        Where the answer starts, and its bytes.

        That is 0 if the server cannot start elsewhere; then it also does not stop.
        """
        last = "" if stop is None else stop - 1
        library = self.hub.library
        with (
            self.hub.explained(self.commit),
            library.utils.get_session().stream(
                "GET",
                self.hub.url(self.commit, self.file.name),
                headers=self.hub.headers | {"range": f"bytes={start}-{last}"},
                timeout=library.constants.HF_HUB_DOWNLOAD_TIMEOUT,
                follow_redirects=True,
            ) as answer,
        ):
            if answer.status_code == 416:
                raise self.failed(f"wrong size: it ends before byte {start + 1}")
            library.utils.hf_raise_for_status(answer)
            self._check_size(answer)
            yield (start if answer.status_code == 206 else 0), answer.iter_bytes()

    def _check_size(self, answer: Any) -> None:
        header = "content-length" if answer.status_code == 200 else "content-range"
        size = answer.headers.get(header, "").rpartition("/")[2]
        if size.isdecimal() and int(size) != self.file.size:
            raise self.failed(
                f"wrong size: {size} bytes are offered and {self.file.size} were "
                "announced: try again later"
            )


@define(kw_only=True)
class Patience:
    """Whether another try is worth it; lives as long as one transfer."""

    remote: Remote
    request: Request
    most: int
    failures: int = 0

    def after(self, arrived: int, cut: DownloadError | None) -> None:
        """
        Go on at once if there are more bytes than ever, else after a pause.

        Raises:
            DownloadError: There were not more several times in a row.
        """
        if arrived > self.most:
            self.most, self.failures = arrived, 0
            return
        self.failures += 1
        if self.failures > RETRIES:
            why = f": {cut.reason}" if cut else ""
            raise self.remote.failed(
                f"nothing more came in {self.failures} tries, {self.most} of "
                f"{self.remote.file.size} bytes are here{why}: try again, they are kept"
            ) from cut
        self.request.wait(PAUSE * 2 ** (self.failures - 1))


def download(
    remote: Remote, target: Path, request: Request, report: Callable[[int], None]
) -> None:
    """
    Fetch a file, from where an earlier try ended.

    Args:
        remote: The file.

        target: Where to put it when it is complete and right.

        request: What to mind.

        report: Called with the bytes that are here.

    Raises:
        DownloadError: With the reason in words.
    """
    partial = target.with_name(target.name + PARTIAL)
    size = remote.file.size
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.touch()
    with partial.open("r+b") as file:
        if file.seek(0, os.SEEK_END) > size:
            _cut_back(file, 0)
        _check_room(remote, partial, size - file.tell())
        patience = Patience(remote=remote, request=request, most=file.tell())
        while file.tell() < size:
            cut = None
            try:
                _append(remote, file, report)
            except DownloadError as error:
                if not remote.hub.may_pass(error):
                    raise
                cut = error
            patience.after(file.tell(), cut)
    _verify(remote, partial)
    os.replace(partial, target)


def _append(remote: Remote, file: BinaryIO, report: Callable[[int], None]) -> None:
    report(file.tell())
    with remote.opened(file.tell()) as (start, chunks):
        _cut_back(file, start)
        for chunk in chunks:
            if file.tell() + len(chunk) > remote.file.size:
                raise remote.failed(
                    f"wrong size: more than the {remote.file.size} bytes announced "
                    "came: try again later"
                )
            file.write(chunk)
            report(file.tell())


def _cut_back(file: BinaryIO, size: int) -> None:
    file.truncate(size)
    file.seek(size)


def _check_room(remote: Remote, partial: Path, needed: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise remote.failed(
            f"no space left: {needed // _MIB} MiB are needed and {free // _MIB} MiB "
            f"are free in {str(partial.parent)!r}: free some or pass cache_dir="
        )


def _verify(remote: Remote, partial: Path) -> None:
    """Compare with the hash that the hub named; what is wrong is removed."""
    if len(remote.file.hash) == 64:
        digest = hashlib.sha256()
    else:  # what git keeps itself has its name for a content
        digest = hashlib.sha1(b"blob %d\0" % remote.file.size, usedforsecurity=False)
    with partial.open("rb") as file:
        while block := file.read(_MIB):
            digest.update(block)
    if digest.hexdigest() != remote.file.hash:
        partial.unlink()
        raise remote.failed(
            f"wrong checksum: {digest.hexdigest()} came and {remote.file.hash} was "
            "announced; it was removed: fetch it again"
        )
