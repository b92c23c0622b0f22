"""A hub on this machine: speaks the protocol, and fails as it is told."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from attrs import define, field

MAIN = "a" * 40
REPOSITORY = "owner/models"


def hash_of(content: bytes) -> str:
    """The checksum of a large file."""
    return hashlib.sha256(content).hexdigest()


@define
class Hub:
    """
    One repository, and what goes wrong with it.

    Attributes:
        files: Content by name.

        small: Names of files that git keeps itself.

        revisions: Commits by branch.

        cuts: After how many bytes each next answer ends; None for a whole one.

        statuses: What each next request for bytes is answered with; 0 for the file.

        ranges: Whether parts of a file can be had.

        announced: Sizes that are named in place of the true ones.

        served: Contents that are sent in place of the true ones.

        token: What everybody must show; None if the repository is public.

        before_bytes: Called before an answer with bytes.

        requests: Method, path, range and authorization of each request.
    """

    files: dict[str, bytes] = field(factory=dict)
    small: set[str] = field(factory=set)
    revisions: dict[str, str] = field(factory=lambda: {"main": MAIN})
    cuts: list[int | None] = field(factory=list)
    statuses: list[int] = field(factory=list)
    ranges: bool = True
    announced: dict[str, int] = field(factory=dict)
    served: dict[str, bytes] = field(factory=dict)
    token: str | None = None
    gated: bool = False
    answer: bytes | None = None
    listing_status: int = 200
    before_bytes: Callable[[], object] = lambda: None
    requests: list[tuple[str, str, str | None, str | None]] = field(factory=list)

    def hash(self, name: str) -> str:
        """What names the content of a file."""
        content = self.files[name]
        if name not in self.small:
            return hash_of(content)
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def list(self, commit: str) -> bytes:
        """The answer about a commit."""
        files = [self._entry(name) for name in self.files]
        return json.dumps({"id": REPOSITORY, "sha": commit, "siblings": files}).encode()

    def _entry(self, name: str) -> dict[str, Any]:
        size = self.announced.get(name, len(self.files[name]))
        entry = {"rfilename": name, "size": size, "blobId": "b" * 40}
        if name in self.small:
            return entry | {"blobId": self.hash(name)}
        lfs = {"size": size, "sha256": self.hash(name), "pointerSize": 130}
        return entry | {"lfs": lfs}

    def paths(self, kind: str = "/cdn/") -> list[str]:
        """The requests of a kind."""
        return [path for method, path, *_ in self.requests if kind in path]


class Server(ThreadingHTTPServer):
    """Serves a `Hub`; the bytes come from another address than the rest."""

    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.cdn = f"http://localhost:{self.server_port}/cdn"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join(20)
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: that a client leaves early belongs to the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    @property
    def hub(self) -> Hub:
        return cast(Server, self.server).hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        headers = self.headers
        about = (headers.get("range"), headers.get("authorization"))
        self.hub.requests.append((self.command, self.path, *about))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        match parts:
            case ["cdn", name]:
                self._bytes(next(n for n in self.hub.files if self.hub.hash(n) == name))
            case ["api", "models", *repository, "revision", _] if (
                "/".join(repository) != REPOSITORY
            ):
                self._refuse(401, "RepoNotFound")
            case _ if self.hub.token and about[1] != f"Bearer {self.hub.token}":
                self._refuse(401, "GatedRepo" if self.hub.gated else "RepoNotFound")
            case ["api", "models", _, _, "revision", revision]:
                self._list(revision)
            case [_, _, "resolve", revision, *name]:
                self._redirect(revision, "/".join(name))
            case _:
                self._refuse(404, "RepoNotFound")

    def _list(self, revision: str) -> None:
        commits = self.hub.revisions
        commit = revision if revision in commits.values() else commits.get(revision)
        if self.hub.listing_status != 200:
            self._refuse(self.hub.listing_status, "")
        elif commit is None:
            self._refuse(404, "RevisionNotFound")
        else:
            self._send(200, self.hub.answer or self.hub.list(commit))

    def _redirect(self, revision: str, name: str) -> None:
        commit = self.hub.revisions.get(revision, revision)
        if name not in self.hub.files:
            self._refuse(404, "EntryNotFound")
            return
        content, hash = self.hub.files[name], self.hub.hash(name)
        self._send(
            302,
            b"",
            Location=f"{cast(Server, self.server).cdn}/{hash}",
            ETag=f'"{hash}"',
            **{
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{hash}"',
                "X-Linked-Size": str(len(content)),
            },
        )

    def _bytes(self, name: str) -> None:
        self.hub.before_bytes()
        if self.hub.statuses and (status := self.hub.statuses.pop(0)):
            self._refuse(status, "")
            return
        content = self.hub.served.get(name, self.hub.files[name])
        start, stop = self._range(len(content))
        if start >= len(content):
            self._refuse(416, "")
        elif self.hub.ranges and self.headers.get("range"):
            place = f"bytes {start}-{stop - 1}/{len(content)}"
            self._send(206, content[start:stop], **{"Content-Range": place})
        else:
            self._send(200, content)

    def _range(self, size: int) -> tuple[int, int]:
        first, _, last = self.headers.get("range", "=0-")[6:].partition("-")
        return int(first or 0), min(int(last) + 1 if last else size, size)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", **{"X-Error-Code": code})

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        cut = None
        if status in (200, 206) and "/cdn/" in self.path and self.hub.cuts:
            cut = self.hub.cuts.pop(0)
        self.close_connection = cut is not None
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
