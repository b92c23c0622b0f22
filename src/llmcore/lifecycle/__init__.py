"""
The life of resources: who depends on whom, who disposes whom, and when it is freed.

Knows nothing of language models. Read in this order: `states` (the decisions, pure),
`monitor` (the lock), `use` (the lease around each native call), `node` (one resource's
plain state), `tree` (the links), `teardown` (disposing), `reaper` (forgotten resources,
exit, fork), `resource` (what users hold), `live` (what lives).
"""

from llmcore.lifecycle.live import ResourceInfo, format_tree, resources
from llmcore.lifecycle.node import Node, Operation
from llmcore.lifecycle.reaper import collect_forgotten
from llmcore.lifecycle.resource import Lease, Resource, Scope
from llmcore.lifecycle.states import State
from llmcore.lifecycle.tree import break_all, observe
from llmcore.lifecycle.use import Exclusion, Use

__all__ = [
    "Exclusion",
    "Lease",
    "Node",
    "Operation",
    "Resource",
    "ResourceInfo",
    "Scope",
    "State",
    "Use",
    "break_all",
    "collect_forgotten",
    "format_tree",
    "observe",
    "resources",
]
