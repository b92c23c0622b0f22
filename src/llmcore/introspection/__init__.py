"""
The live tree of a running process, for whoever looks from outside: `llmcore ps`.

A process opts in with `publish` or the environment variable ``LLMCORE_PS=1``. It then
answers each connection to a socket, in a folder that only its user can enter, with one
JSON text, and takes no commands. `processes` asks all that opted in.
"""

from llmcore.introspection.asking import processes
from llmcore.introspection.publishing import publish, publish_if_asked, withdraw
from llmcore.introspection.values import ProcessInfo, PublishedResource, snapshot

__all__ = [
    "ProcessInfo",
    "PublishedResource",
    "processes",
    "publish",
    "publish_if_asked",
    "snapshot",
    "withdraw",
]
