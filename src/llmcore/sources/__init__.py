"""
Where models come from: a path, a model hub, or a scheme that a plugin adds.

Importing this loads no plugin and no client of a hub; both come at first use.
"""

from __future__ import annotations

from llmcore.sources.fetching import aresolve, header, resolve
from llmcore.sources.provider import ModelSource, Request
from llmcore.sources.source import Source
from llmcore.sources.values import Located, ModelFile, Progress, Resolved, Share

__all__ = [
    "Located",
    "ModelFile",
    "ModelSource",
    "Progress",
    "Request",
    "Resolved",
    "Share",
    "Source",
    "aresolve",
    "header",
    "resolve",
]
