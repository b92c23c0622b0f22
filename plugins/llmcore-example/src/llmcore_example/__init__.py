"""A backend small enough to be read: a Markov chain over the bytes of a text."""

from llmcore.hookspecs import hookimpl
from llmcore.values import BackendInfo, Capability

INFO = BackendInfo(
    name="example",
    factory="llmcore_example.backend:ExampleBackend",
    summary="a Markov chain over the bytes of a text",
    formats=("markov",),
    capabilities=frozenset(
        [Capability.LOGITS, Capability.MULTI_SEQUENCE, Capability.PARTIAL_REMOVE]
    ),
    spec="1.1",
)


@hookimpl
def llmcore_backend_info() -> BackendInfo:
    """Say what this backend is; imports nothing of it."""
    return INFO
