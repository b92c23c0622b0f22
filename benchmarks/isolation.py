"""
An engine in a process of its own against the same engine in this one.

    python -m benchmarks.isolation [MODEL.gguf] [--pairs 15] [--tokens 64]

Each comparison is a number of interleaved pairs of alternating order, see
`benchmarks.common`. Both sides have the same model, prompts, context size and threads
and choose greedily; both are processes of their own, started by this one, and the
isolated side starts its engine in one more. ``logits`` draws with a seed, so that core
draws, from logits in shared memory. What one call costs is measured on an engine that
does nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from typing import Any

import llmcore
from benchmarks.child import generated, in_threads, serve, timed
from benchmarks.common import Compared, Side, pairs, table
from llmcore.cli.demo import demo_model
from llmcore.isolation import isolated
from llmcore.plugins import registry
from llmcore.values import ModelParams

TEXTS = ("The capital of France is", "Once upon a time", "The sun rises in", "Water")
DRAWS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "logits": {"temperature": 1.0, "seed": 1},
}


class Jobs:
    """
    What one side can do.

    Args:
        apart: Whether its engine has a process of its own.
    """

    def __init__(self, apart: bool) -> None:
        chosen = registry().get("llama_cpp")
        backend = isolated(chosen.info) if apart else registry().create("llama_cpp")
        self._llama = llmcore.get_llama(backend)
        self._sequences: list[llmcore.Sequence] = []

    def open(self, path: str, threads: int) -> None:
        """The model, and a context for all prompts."""
        context = self._llama.load_model(path).create_context(
            context_size=512, sequences=len(TEXTS), threads=threads
        )
        self._sequences = [context.get_sequence() for _ in TEXTS]

    def generate(self, width: int, count: int, draw: str) -> dict[str, object]:
        """Some streams at once, from threads."""
        model = self._sequences[0].context.model
        for sequence in self._sequences:
            sequence.clear()

        def read(number: int) -> llmcore.GenerationResult:
            prompt = model.tokenize(TEXTS[number], add_bos=model.info.add_bos)
            stream = self._sequences[number].generate(
                prompt, max_tokens=count, ignore_eos=True, **DRAWS[draw]
            )
            for event in stream:
                _ = event.text
            return stream.result

        seconds, answers = timed(lambda: in_threads(read, width))
        texts = [answer.text for answer in answers]
        return generated(seconds, texts, [len(answer.tokens) for answer in answers])


def side(apart: bool) -> Side:
    """This script as one side."""
    name = "isolated" if apart else "in-process"
    return Side((sys.executable, "-m", "benchmarks.isolation", "--side", name))


def compare(
    ours: Side, theirs: Side, args: argparse.Namespace, width: int, draw: str
) -> tuple[str, ...]:
    """A row of the table."""
    texts: dict[Side, list[str]] = {}

    def rate(one: Side) -> float:
        answer = one("generate", width=width, count=args.tokens, draw=draw)
        texts[one] = answer["texts"]
        return float(answer["rate"])

    found: Compared = pairs(lambda: rate(ours), lambda: rate(theirs), args.pairs)
    same = sum(a == b for a, b in zip(texts[ours], texts[theirs], strict=True))
    numbers = f"{found.ours:.1f}", f"{found.theirs:.1f}"
    spread = f"{found.spread}; same text {same} of {width}"
    return f"{width} x {draw}", *numbers, spread


def one_call() -> float:
    """Microseconds of a call that does next to nothing, from a thread of its own."""
    backend = isolated(registry().get("null").info)
    model = backend.load_model(None, ModelParams(), lambda share: True)

    def calls(_: int) -> float:
        return timed(lambda: [model.piece(65) for _ in range(2000)])[0] / 2000

    found = [in_threads(calls, 2)[0] for _ in range(5)]
    backend.close()
    return statistics.median(found) * 1e6


def arguments() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=str(demo_model()))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=64, help="of each stream")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--widths", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--side", choices=("isolated", "in-process"))
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    args = arguments()
    if args.side:
        jobs = Jobs(args.side == "isolated")
        serve(open=jobs.open, generate=jobs.generate)
        return
    rows = []
    with side(True) as ours, side(False) as theirs:
        for one in (ours, theirs):
            one("open", path=args.model, threads=args.threads)
        for draw in DRAWS:
            for width in args.widths:
                rows.append(compare(ours, theirs, args, width, draw))
                print("  ".join(rows[-1]), file=sys.stderr)
    header = (
        "streams",
        "isolated, tokens/s",
        "in process",
        "ratio: median (quartiles)",
    )
    print(table(header, rows))
    print(f"\none call: {one_call():.0f} us")


if __name__ == "__main__":
    main()
