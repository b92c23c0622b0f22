"""What a person writes to name a model, taken apart."""

from __future__ import annotations

import os
import re

from attrs import frozen

from llmcore.errors import ParameterError
from llmcore.plugins.wording import did_you_mean

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
"""Two letters or more: one letter is a drive of Windows."""

_HUB_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", re.ASCII)
_BAD_IN_FILE = re.compile(r"[\x00-\x1f\x7f\\:?#]")
_BAD_IN_REVISION = re.compile(r"[\x00-\x20\x7f\\:?*\[~^]")


@frozen(kw_only=True)
class Source:
    """
    The name of a model: where it comes from, and what it is called there.

    Attributes:
        scheme: ``"path"``, ``"hf"``, or one that a plugin adds.

        name: The path; ``"owner/repository/folder/file.gguf"`` on a hub; whatever the
            plugin understands.

        revision: Branch, tag or commit on a hub; None for its main branch.
    """

    scheme: str
    name: str
    revision: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{self.scheme}:{self.name}{revision}"

    @classmethod
    def parse(cls, source: str | os.PathLike[str] | Source) -> Source:
        """
        Take a name apart; touches neither the disk nor the network.

        Args:
            source: ``"path:a.gguf"``, ``"hf:owner/repository/a.gguf@revision"``,
                ``"scheme:..."`` of a plugin, or simply a path. An object that is not a
                string is always a path.

        Raises:
            ParameterError: It cannot be a name; says what is wrong with it.
        """
        if isinstance(source, Source):
            return source
        match = _SCHEME.fullmatch(source) if isinstance(source, str) else None
        if match is None:
            return cls(scheme="path", name=_path(os.fspath(source)))
        scheme, name = match[1].lower(), match[2]
        if scheme == "path":
            return cls(scheme=scheme, name=_path(name))
        if scheme == "hf":
            name, revision = _on_hub(match[0], name)
            return cls(scheme=scheme, name=name, revision=revision)
        _check_scheme(scheme, match[0])
        return cls(scheme=scheme, name=name)


def checked_revision(revision: str, source: object) -> str:
    """
    The name of a branch, tag or commit, as git allows them.

    Raises:
        ParameterError: It cannot be one.
    """
    if not revision:
        raise ParameterError(
            f"source {str(source)!r} has an empty revision: leave out the '@' for the "
            "main branch"
        )
    if _BAD_IN_REVISION.search(revision) or not _is_relative(revision):
        raise ParameterError(
            f"source {str(source)!r}: {revision!r} cannot be a revision: give a "
            "branch, a tag or a commit"
        )
    return revision


def _path(name: str) -> str:
    if not name:
        raise ParameterError("source 'path:' names no file: write path:model.gguf")
    return os.path.expanduser(name)


def _on_hub(source: str, text: str) -> tuple[str, str | None]:
    """Name and revision of a file on a hub."""
    name, at, revision = text.rpartition("@") if "@" in text else (text, "", "")
    parts = name.split("/")
    if len(parts) < 3 or not parts[-1]:
        raise ParameterError(
            f"source {source!r} names no file: write hf:owner/repository/file.gguf"
        )
    for part in parts[:2]:
        if not _HUB_NAME.fullmatch(part) or "--" in part or ".." in part:
            raise ParameterError(
                f"source {source!r}: {part!r} cannot be the name of an owner or of a "
                "repository"
            )
    file = "/".join(parts[2:])
    if _BAD_IN_FILE.search(file) or not _is_relative(file):
        raise ParameterError(
            f"source {source!r}: {file!r} cannot be a file: no part of it may be "
            "empty, '.' or '..'"
        )
    return name, checked_revision(revision, source) if at else None


def _check_scheme(scheme: str, source: str) -> None:
    from llmcore.plugins import registry

    known = ["hf", "path", *registry().sources]
    if scheme not in known:
        raise ParameterError(
            f"source {source!r} has the unknown scheme {scheme!r}"
            f"{did_you_mean(scheme, known)} (known: {', '.join(known)}); for a file of "
            f"that name write 'path:{source}'"
        )


def _is_relative(name: str) -> bool:
    """Whether a name with slashes leads nowhere but down."""
    return all(part not in ("", ".", "..") for part in name.split("/"))
