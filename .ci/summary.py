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

COLOUR = re.compile(r"\x1b\[[\d;]*m")
SUMMARY = re.compile(r"^=* ?((?:\d+ [a-z]+,? )+in [\d.]+s.*?)(?: =+)?$", re.MULTILINE)
NOTHING = re.compile(r"^skipped: (.+)$", re.MULTILINE)


def last_line(output: str, pattern: re.Pattern[str] = SUMMARY) -> str:
    """What pytest, or another pattern, said last; nothing if it said nothing."""
    lines: list[str] = pattern.findall(COLOUR.sub("", output))
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
        output = "".join(run["output"] for run in environment.get("test", ()))
        line = last_line(output)
        total += counts(line)
        verdict = "ok" if result["success"] else "FAILED"
        if result["skipped"]:
            verdict, line = "SKIPPED", "no such Python here"
        elif not result["success"]:
            total["failed"] += not counts(line)["failed"]
        elif not line and (why := last_line(output, NOTHING)):
            verdict, line = "SKIPPED", why
        print(f"{name:36}{verdict:9}{line}")
    if int(status) and not total["failed"]:
        total["failed"] = 1
    print(
        ", ".join(f"{total[word]} {word}" for word in ("passed", "failed", "skipped"))
    )
    return int(total["failed"] > 0 or total["passed"] == 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
