"""
Imported once, by the process from which all runs of the suite are forked: what they
import is here already, and their garbage collector need not look at it.
"""

from __future__ import annotations

import gc
import importlib
import os

from runner import SUITE, run_pytest

LATER = (
    *("anyio._backends._asyncio", "anyio._backends._trio"),
    *("jinja2.sandbox", "llmcore.template_sandbox"),
    *("llmcore.engine.logprobs", "llmcore.engine.sampling", "numpy.random"),
)
"""What tests import only when they run."""

run_pytest(["--collect-only", *SUITE, "--llmcore-backend=null"], os.devnull)
for name in LATER:
    importlib.import_module(name)
gc.collect()
gc.freeze()
