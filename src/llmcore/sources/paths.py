"""The source ``path:`` is this machine: nothing is fetched."""

from __future__ import annotations

import os
from pathlib import Path

from llmcore.errors import SourceError, SourceNotFoundError
from llmcore.plugins.wording import did_you_mean
from llmcore.sources.provider import ModelSource, Request
from llmcore.sources.source import Source
from llmcore.sources.split import parts_of
from llmcore.sources.values import ModelFile, Resolved


class PathSource(ModelSource):
    """Files and folders of this machine; nothing of a request applies to them."""

    def resolve(self, source: Source, request: Request) -> Resolved:
        path = Path(source.name)
        if os.path.isdir(path):  # False also for what no file can be called
            files = sorted(file for file in path.rglob("*") if file.is_file())
        else:
            files = [path.with_name(name) for name in parts_of(path.name)]
        return Resolved(source=source, path=path, files=tuple(map(_model_file, files)))


def _model_file(path: Path) -> ModelFile:
    try:
        return ModelFile(name=path.name, path=path, size=path.stat().st_size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFoundError(
            path, f"there is no such file{_near(path)}"
        ) from error
    except OSError as error:
        raise SourceError(path, (error.strerror or str(error)).lower()) from error
    except ValueError as error:
        raise SourceError(path, f"not a valid path: {error}") from error


def _near(path: Path) -> str:
    try:
        return did_you_mean(path.name, [file.name for file in path.parent.iterdir()])
    except OSError:
        return ""
