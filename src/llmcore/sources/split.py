"""The names of the files that a split GGUF model consists of."""

from __future__ import annotations

import re

from llmcore.errors import ParameterError

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


def parts_of(name: str) -> list[str]:
    """
    All files of the model that starts with a file; only that one if it is not split.

    Raises:
        ParameterError: It is a part but not the first.
    """
    match = _PART.fullmatch(name)
    if match is None or (count := int(match[3])) < 1:
        return [name]
    stem, number = match[1], int(match[2])
    names = [f"{stem}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]
    if number != 1:
        raise ParameterError(
            f"{name!r} is part {number} of a split model: give the first one, "
            f"{names[0]!r}"
        )
    return names
