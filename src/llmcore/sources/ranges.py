"""
Reads the header of a model on a hub from the beginnings of its files.

The length of a header is known when it was read, so the first megabyte is asked for,
and then as much again until it is complete.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmcore.errors import DownloadError, ModelLoadError
from llmcore.gguf_header import (
    MAGIC,
    GGUFHeader,
    IncompleteHeaderError,
    InvalidFileError,
    ParsedGGUF,
)
from llmcore.model_file import parse_gguf_part, whole_header
from llmcore.sources.provider import Request
from llmcore.sources.transfer import Patience, Remote

FIRST = 2**20
"""Bytes to ask for at first."""

MOST = 64 * 2**20
"""Bytes that no header needs: the largest vocabularies take a quarter."""


def remote_header(remotes: Sequence[Remote], request: Request) -> GGUFHeader | None:
    """
    The header of a model whose files are on a hub; None if these are no GGUF files.

    Args:
        remotes: Its files, the first part first.

        request: What to mind.

    Raises:
        ModelLoadError: It is a GGUF file, but not a sound one.

        DownloadError: The connection was cut too often.
    """
    first = remotes[0]
    begin = _beginning(first, request, b"", min(FIRST, first.file.size))
    if not begin.startswith(MAGIC):
        return None
    try:
        parts = [_parse(first, request, begin)]
        parts += [_parse(remote, request) for remote in remotes[1:]]
        return whole_header(parts)
    except InvalidFileError as invalid:
        raise ModelLoadError(first.hub.source, str(invalid)) from None


def _parse(remote: Remote, request: Request, data: bytes = b"") -> ParsedGGUF:
    wanted = FIRST
    while True:
        data = _beginning(remote, request, data, min(wanted, remote.file.size))
        try:
            return parse_gguf_part(data, remote.file.size)
        except IncompleteHeaderError:
            if wanted >= MOST:
                raise InvalidFileError(
                    f"the header of {remote.file.name} is longer than {MOST} bytes"
                ) from None
        wanted *= 2


def _beginning(remote: Remote, request: Request, data: bytes, wanted: int) -> bytes:
    """The first bytes of a file, of which some may be here already."""
    here = bytearray(data)
    patience = Patience(remote=remote, request=request, most=len(here))
    while len(here) < wanted:
        cut = None
        request.check()
        try:
            _extend(remote, here, wanted)
        except DownloadError as error:
            if not remote.hub.may_pass(error):
                raise
            cut = error
        patience.after(len(here), cut)
    return bytes(here[:wanted])


def _extend(remote: Remote, here: bytearray, wanted: int) -> None:
    with remote.opened(len(here), wanted) as (start, chunks):
        del here[start:]
        for chunk in chunks:
            here += chunk
            if len(here) >= wanted:
                return  # a server that knows no ranges would go on to the end
