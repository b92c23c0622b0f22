"""
llmcore against the raw C API of the same library, and against other frameworks.

    python -m benchmarks.streams [MODEL.gguf] [--pairs 15] [--chart FILE.svg]

Each comparison is a number of interleaved pairs of alternating order, and the ratio is
the median of the pairs' own ratios, so 1.00 is the speed of the engine. All sides have
the same model, prompts, context size and threads, all streams start together, choose
greedily, and count as tokens per second everything that they generate divided by the
time from the start to the end of the last one, short prompts included.

The raw loop runs on llmcore's own native context, in the thread that calls the engine
there. Each peer is a process of its own; those that are not installed are skipped:

    --llama-cpp-python, --cyllama-python    a Python that has it
    --node, --node-llama-cpp                the program, and the folder of the package
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.chart import chart
from benchmarks.common import Compared, Side, SideError, pairs, table
from benchmarks.sides import (
    CONTEXT_SIZE,
    Peer,
    add_peer_arguments,
    peers,
    python_side,
)
from llmcore.cli.demo import demo_model

TEXTS = (
    "The capital of France is",
    "Once upon a time",
    "The sun rises in",
    "My favourite food is",
    "In the year 1969",
    "Water boils at",
    "The most important invention was",
    "Python is a",
)
LONG = "A long story about many things. "
COPIED = (
    "def area(width: float, height: float) -> float:\n"
    '    """Return the area of a rectangle."""\n'
    "    if width < 0 or height < 0:\n"
    '        raise ValueError("sides must not be negative")\n'
    "    return width * height\n\n\n"
)
Found = dict[str, dict[int, Compared]]


class Streams:
    """The comparisons of one run, and what they found."""

    def __init__(self, side: Side, args: argparse.Namespace) -> None:
        self.side, self.args = side, args
        self.rows: list[tuple[str, ...]] = []
        self.found: Found = {}
        self._open(1)
        self.prompts: list[list[int]] = side("tokenize", texts=TEXTS)

    def _open(self, sequences: int, context_size: int = CONTEXT_SIZE) -> None:
        size = {"sequences": sequences, "context_size": context_size}
        self.side("open", path=self.args.model, threads=self.args.threads, **size)

    def generation(self, width: int) -> None:
        """Some streams at once, from threads and from tasks, and from peers."""
        self._open(width)
        prompts = {"prompts": self.prompts[:width], "count": self.args.tokens}
        raw = Generating(self.side, {**prompts, "do": "raw_generate"})
        for name, tasks in (("llmcore, threads", False), ("llmcore, tasks", True)):
            ours = Generating(self.side, {**prompts, "tasks": tasks})
            self._generation(name, width, ours, raw)
        for peer in peers(self.args):
            self._peer(peer, width, raw)

    def _peer(self, peer: Peer, width: int, raw: Generating) -> None:
        job = {"texts": TEXTS[:width], "count": self.args.tokens}
        try:
            with peer.open(self.args.model, width, self.args.threads) as side:
                self._generation(peer.name, width, Generating(side, job), raw)
        except SideError as error:
            self._row(f"{width} x {peer.name}", "-", "-", str(error))

    def _generation(
        self, name: str, width: int, ours: Generating, raw: Generating
    ) -> None:
        found = pairs(ours, raw, self.args.pairs)
        same = sum(a == b for a, b in zip(ours.texts, raw.texts, strict=True))
        self.found.setdefault(name, {})[width] = found
        self._add(f"{width} x {name}", found, f"; same text {same} of {width}")

    def prompt(self) -> None:
        """Evaluation of a prompt of a whole batch."""
        self._open(1, context_size=1024)
        (tokens,) = self.side("tokenize", texts=[LONG * 200])
        tokens = tokens[:512]
        found = pairs(
            lambda: len(tokens) / float(self.side("evaluate", tokens=tokens)),
            lambda: len(tokens) / float(self.side("raw_evaluate", tokens=tokens)),
            self.args.pairs,
        )
        self._add(f"prompt of {len(tokens)} tokens", found)

    def second_turn(self) -> None:
        """First text of a second chat turn, against its new tokens alone."""
        self._open(1, context_size=1024)
        turn: dict[str, Any] = {}

        def ours() -> float:
            turn.update(self.side("turn"))
            return 1 / float(turn["seconds"])

        def raw() -> float:
            known, new = turn["known"], turn["new"]
            return 1 / float(self.side("raw_turn", known=known, new=new))

        found = pairs(ours, raw, self.args.pairs)
        milliseconds = Compared(
            ours=1000 / found.ours, theirs=1000 / found.theirs, ratios=found.ratios
        )
        known, new = len(turn["known"]), len(turn["new"])
        name = f"second turn, ms to first text ({new} new tokens after {known})"
        self._add(name, milliseconds)

    def lookup(self) -> None:
        """In the middle of a copy, with guesses from the prompt and without."""
        self._open(1, context_size=1024)
        (tokens,) = self.side("tokenize", texts=[COPIED * 3 + COPIED[:9]])
        job = {"do": "copied", "prompt": tokens, "count": 2 * self.args.tokens}
        guessing = Generating(self.side, {**job, "predict": True})
        plain = Generating(self.side, job)
        try:
            found = pairs(guessing, plain, self.args.pairs)
        except SideError as error:
            self._row("prompt lookup", "-", "-", str(error))
            return
        same = "same text" if guessing.texts == plain.texts else "another text"
        self._add("prompt lookup, against llmcore without", found, f"; {same}")

    @property
    def speeds(self) -> dict[str, dict[int, float]]:
        """
        Tokens per second by side and width.

        Each side's share of one rate of the raw loop: it ran beside each of them, and
        the machine was not equally fast all the time.
        """
        raw = {
            width: statistics.median(
                by[width].theirs for by in self.found.values() if width in by
            )
            for width in self.args.widths
        }
        shares = {
            name: {width: found.ratio * raw[width] for width, found in by.items()}
            for name, by in self.found.items()
        }
        return {"raw": raw, **shares}

    def _add(self, name: str, found: Compared, more: str = "") -> None:
        numbers = f"{found.ours:.1f}", f"{found.theirs:.1f}"
        self._row(name, *numbers, found.spread + more)

    def _row(self, *row: str) -> None:
        self.rows.append(row)
        print("  ".join(row), file=sys.stderr)  # the table comes when all is done

    # -- what has no raw counterpart ---------------------------------------------------

    def cancel(self) -> str:
        """During a prompt of 2 000 tokens."""
        self._open(1, context_size=2048)
        (tokens,) = self.side("tokenize", texts=[LONG * 400])
        runs = [self.side("cancel", tokens=tokens[:2000]) for _ in range(9)]
        free = statistics.median(run["ms"] for run in runs)
        return (
            f"cancel during a prompt of 2000 tokens, 9 times: sequence free after "
            f"{free:.1f} ms (median), {max(run['ms'] for run in runs):.1f} ms (most); "
            f"calls of the engine begun after it: {max(run['calls'] for run in runs)}, "
            f"tokens evaluated after it: {max(run['evaluated'] for run in runs)} (most)"
        )

    def fork(self) -> str:
        """Of a sequence with 1 000 tokens."""
        self._open(2, context_size=1024)
        (tokens,) = self.side("tokenize", texts=[LONG * 400])
        runs = [self.side("fork", tokens=tokens[:1000]) for _ in range(9)]
        fork, first, second = (
            statistics.median(run[what] for run in runs)
            for what in ("fork", "first", "second")
        )
        return (
            f"fork of a sequence of 1000 tokens: {fork:.1f} ms, the first token on the "
            f"copy {first:.1f} ms, the second {second:.1f} ms (medians of {len(runs)})"
        )


class Generating:
    """Calling it runs the job and is its tokens per second; keeps the texts."""

    def __init__(self, side: Side, job: dict[str, Any]) -> None:
        self._side, self._job = side, {"do": "generate", **job}
        self.texts: list[str] = []

    def __call__(self) -> float:
        answer = self._side(**self._job)
        self.texts = answer["texts"]
        return float(answer["rate"])


def arguments() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=str(demo_model()))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=64, help="of each stream")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--widths", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--chart", type=Path, help="write an SVG file")
    add_peer_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Print the table and write the chart."""
    args = arguments()
    with python_side("ours") as side:
        streams = Streams(side, args)
        for width in args.widths:
            streams.generation(width)
        streams.prompt()
        streams.second_turn()
        streams.lookup()
        lines = [streams.cancel(), streams.fork()]
    header = ("what", "tokens/s", "raw", "ratio: median (quartiles)")
    print(table(header, streams.rows), *lines, sep="\n\n")
    if args.chart is not None:
        title = "Tokens per second of all streams together"
        args.chart.parent.mkdir(parents=True, exist_ok=True)
        args.chart.write_text(chart(title, args.widths, streams.speeds), "utf-8")


if __name__ == "__main__":
    main()
