"""Run one scenario."""

from __future__ import annotations

import sys

from fault_scenarios import SCENARIOS

SCENARIOS[sys.argv[1]].run()
