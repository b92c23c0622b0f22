"""
Sums up a run of tox: each environment with pytest's own last line, then all of them.

Usage: ``summary.py RESULT_JSON EXIT_STATUS``; exits with 1 if anything failed. A check
that is not a test counts as one.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

COLOUR = re.compile(r"\x1b\[[\d;]*m")
SUMMARY = re.compile(r"^=* ?((?:\d+ [a-z]+,? )+in [\d.]+s.*?)(?: =+)?$", re.MULTILINE)


def last_line(environment: dict[str, Any]) -> str:
    """What pytest said at the end, or nothing if it did not run."""
    output = "".join(run["output"] for run in environment.get("test", ()))
    lines: list[str] = SUMMARY.findall(COLOUR.sub("", output))
    return lines[-1] if lines else ""


def counts(line: str) -> Counter[str]:
    """The numbers in such a line, errors among the failures."""
    numbers = re.findall(r"(\d+) ([a-z]+)", line.split(" in ")[0])
    total = Counter({word.rstrip("s"): int(number) for number, word in numbers})
    total["failed"] += total.pop("error", 0)
    return total


def main(result_json: str, status: str) -> int:
    """Print the lines; returns the exit status."""
    text = Path(result_json).read_text("utf-8")
    total = Counter[str]()
    for name, environment in json.loads(text or '{"testenvs": {}}')["testenvs"].items():
        if not (result := environment.get("result")):
            continue
        line = last_line(environment)
        total += counts(line)
        verdict = "ok" if result["success"] else "FAILED"
        if result["skipped"]:
            verdict, line = "SKIPPED", "no such Python here"
        elif not result["success"] and not counts(line)["failed"]:
            total["failed"] += 1
        print(f"{name:24}{verdict:9}{line}")
    if int(status) and not total["failed"]:
        total["failed"] = 1
    print(
        ", ".join(f"{total[word]} {word}" for word in ("passed", "failed", "skipped"))
    )
    return int(total["failed"] > 0 or total["passed"] == 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
