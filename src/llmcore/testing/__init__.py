"""
For tests: `checked`, which asserts the contract of the seam around any backend,
`leak_check`, which finds what was not given back, and the null backend, with scripted
behaviour and a ledger that does not trust core.

A script says what the engine does; the ledger says what was done to it. At the seam:

    >>> from llmcore.spi import Batch
    >>> from llmcore.testing import NullScript, null_backend
    >>> from llmcore.values import ContextParams, ModelParams
    >>> backend = null_backend(NullScript(answer="Hi"))
    >>> model = backend.load_model(None, ModelParams(), lambda share: True)
    >>> context = model.create_context(ContextParams(context_size=64))
    >>> prompt = model.tokenize(b"Say hi. ")
    >>> count = len(prompt)
    >>> batch = Batch(prompt, range(count), [0] * count, [False] * (count - 1) + [True])
    >>> context.decode(batch)
    >>> model.piece(int(context.logits(count - 1).argmax()))
    b'H'
    >>> backend.script.fail("decode")
    >>> context.decode(Batch([72], [count], [0], [True]))
    Traceback (most recent call last):
    llmcore.errors.DecodeError: scripted failure of decode
    >>> context.close(), model.close(), backend.close()
    (None, None, None)
    >>> backend.ledger.violations, backend.ledger.live
    ([], {})

To hold a call inside the engine while something else happens, use a gate:

    with script.gate("decode") as gate:
        worker.start()
        gate.wait_entered()
        ...                          # the worker is inside `decode` here
"""

from __future__ import annotations

from llmcore.backends.null.backend import NullBackend
from llmcore.backends.null.gate import Gate
from llmcore.backends.null.ledger import Event, Ledger, Violation, ViolationKind
from llmcore.backends.null.script import OPS, NullScript
from llmcore.testing.checked import CheckedBackend, checked
from llmcore.testing.contract import ContractError
from llmcore.testing.leak_error import Leak, LeakError
from llmcore.testing.leak_growth import Growth, growth
from llmcore.testing.leaks import LeakCheck, leak_check

__all__ = [
    "OPS",
    "CheckedBackend",
    "ContractError",
    "Event",
    "Gate",
    "Growth",
    "Leak",
    "LeakCheck",
    "LeakError",
    "Ledger",
    "NullBackend",
    "NullScript",
    "Violation",
    "ViolationKind",
    "checked",
    "growth",
    "leak_check",
    "null_backend",
]


def null_backend(script: NullScript | None = None) -> NullBackend:
    """
    A backend instance for `llmcore.get_llama`, with its ``script`` and ``ledger``.

    Args:
        script: What it is and does; None for an obedient one.
    """
    return NullBackend(script)
