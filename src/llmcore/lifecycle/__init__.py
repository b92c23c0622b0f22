"""
The life of resources: who depends on whom, who disposes whom, and when it is freed.

Knows nothing of language models. Read in this order: `states` (the decisions, pure),
`node` (one resource's plain state and the lease around each native call), `tree` (the
links), `teardown` (disposing), `reaper` (forgotten resources, exit, fork), `resource`
(what users hold), `live` (what lives).
"""

from llmcore.lifecycle.live import ResourceInfo, format_tree, resources
from llmcore.lifecycle.node import Node, Operation, Use
from llmcore.lifecycle.reaper import collect_forgotten
from llmcore.lifecycle.resource import Lease, Resource, Scope
from llmcore.lifecycle.states import State
from llmcore.lifecycle.tree import break_all, observe

__all__ = [
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
