"""
`ModelManager`: many resident models under one budget.

Read in this order: `options` (how one model is kept), `entry` (one model), `table`
(which there are), `admission` (room in the budget), `loading` (one load), `keeper`
(loads, unloads, evictions, restarts), `server` and `direct` (what answers), `requests`
(what was accepted), `manager` (what users hold).
"""

from llmcore.manager.manager import ModelManager, Route
from llmcore.manager.options import LoadOptions
from llmcore.manager.table import DEFAULT

__all__ = ["DEFAULT", "LoadOptions", "ModelManager", "Route"]
