"""
The cache of `huggingface_hub`, which other programs share.

Its layout is documented there: ``blobs`` holds contents by their hash, ``snapshots``
a folder of links for each commit, ``refs`` the commit of each branch, and ``.locks``
keeps two programs from fetching the same thing.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import field, frozen

from llmcore.sources.hub_client import HubFile

_LOOK_UP = 0.2
"""Seconds between two looks at whether a waiting caller still wants to wait."""


@frozen(kw_only=True)
class HubCache:
    """The part of the cache that belongs to one repository."""

    root: Path
    repository: str
    library: Any = field(repr=False)

    @property
    def _folder(self) -> Path:
        return self.root / f"models--{self.repository.replace('/', '--')}"

    def find(self, names: Sequence[str], revision: str) -> list[Path] | None:
        """The files of a revision, as far as it was known last; None if one lacks."""
        found = [
            self.library.try_to_load_from_cache(
                self.repository, name, cache_dir=self.root, revision=revision
            )
            for name in names
        ]
        paths = [Path(path) for path in found if isinstance(path, str)]
        return paths if len(paths) == len(names) else None

    def commit_of(self, path: Path) -> str:
        """The commit that a file of `find` belongs to."""
        return path.relative_to(self._folder / "snapshots").parts[0]

    def blob(self, file: HubFile) -> Path:
        """Where the content of a file belongs."""
        return self._folder / "blobs" / file.hash

    def place(self, file: HubFile, commit: str) -> Path | None:
        """Where the content of a file is; None if it is not here, or not all of it."""
        blob = self.blob(file)
        return self.named(file, commit) or (blob if _holds(blob, file) else None)

    def named(self, file: HubFile, commit: str) -> Path | None:
        """The same, if it has its name in the commit."""
        path = self._name(file, commit)
        return path if _holds(path, file) else None

    def _name(self, file: HubFile, commit: str) -> Path:
        return self._folder / "snapshots" / commit / file.name

    @contextmanager
    def locked(self, file: HubFile, waiting: Callable[[], None]) -> Iterator[None]:
        """The right to write a content; what waits for it is asked again and again."""
        from filelock import Timeout

        lock = self.root / ".locks" / self._folder.name / f"{file.hash}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(
                        self.library.utils.WeakFileLock(lock, timeout=_LOOK_UP)
                    )
                    break
                except Timeout:
                    waiting()
            yield

    def link(self, file: HubFile, commit: str) -> Path:
        """Give the content of a file its name in a commit."""
        blob, path = self.blob(file), self._name(file, commit)
        if not blob.exists() or (path.exists() and path.samefile(blob)):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        try:
            path.symlink_to(os.path.relpath(blob, path.parent))
        except OSError:  # Windows without the right to: the library does the same
            os.replace(blob, path)
        return path

    def remember(self, revision: str, commit: str) -> None:
        """Note what a branch or tag means, for when nobody can be asked."""
        path = self._folder / "refs" / revision
        if revision == commit or (path.is_file() and path.read_text() == commit):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        new.write_text(commit)
        os.replace(new, path)


def _holds(path: Path, file: HubFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size
