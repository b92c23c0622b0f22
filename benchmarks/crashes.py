"""
What becomes of a program whose isolated engine dies, in each way in which it can.

    python -m benchmarks.crashes [MODEL.gguf] [--files 1000] [--seed 1]

The program is a process of its own, started by this one, so that its death would be
seen; its engine is the real llama.cpp in a child of that. The *next request* is a new
child, which loads the model and answers greedily, and its tokens are compared with
those from before any death.

Damaged files are given to the engine at the seam: past core's own check, which refuses
most of them before. Half of them are a tiny model in which structure or values of the
header are wrong, half the model itself with 1 to 16 wrong places in header or weights.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.native.isolation import crashing_engines
from tests.native.isolation.crashing_engines import BAD
from tests.native.isolation.damaged_files import Trials, damaged
from tests.unit.fuzz_model_file import mutations, tiny_image

import llmcore
from benchmarks.child import serve, timed
from benchmarks.common import Side, SideError, table
from llmcore.cli.demo import demo_model
from llmcore.errors import BackendCrashedError, ModelLoadError
from llmcore.isolation import isolated
from llmcore.model_file import check_model_file, read_gguf_header
from llmcore.plugins import registry
from llmcore.values import evolve

WAYS = {
    "abort": "`abort()`, by a failed assertion of the engine",
    "segfault": "`SIGSEGV`, by a pointer to nothing in the engine",
    "kill": "kill -9",
    "hang": "native code that never returns; the watchdog is set to 5 s",
    "malformed": "a malformed reply",
    "oversized": "a reply of a terabyte",
}
PROMPT = "The capital of France is"
TOKENS = 24
WATCHDOG = 5.0
AT_ONCE = 10
"""Files between two requests."""

DEATHS = "what was done", "what the caller got", "program", "next request", "seconds"
FILES = (
    *("damaged", "files", "refused", "evaluated", "crashed the child", "how"),
    *("which core lets through", "other errors", "program and requests in between"),
)


class Jobs:
    """
    What the program can do.

    Args:
        path: The model.

        folder: For damaged files.

        seed: Of the damage.
    """

    def __init__(self, path: str, folder: str, seed: int) -> None:
        self._info = registry().get("llama_cpp").info
        self._path = path
        self._trials = Trials(self._info)
        self._files = {
            "tiny": tiny_files(Path(folder), seed),
            "real": real_files(Path(path), Path(folder), seed),
        }

    def answer(self) -> dict[str, Any]:
        """Of a new engine: its tokens, and the seconds from nothing to the last one."""

        def ask() -> tuple[int, ...]:
            with llmcore.get_llama(isolated(self._info)) as llama:
                sequence = self._sequence(llama)
                prompt = sequence.context.model.tokenize(PROMPT)
                stream = sequence.generate(prompt, max_tokens=TOKENS, ignore_eos=True)
                return stream.result.tokens

        seconds, tokens = timed(ask)
        return {"tokens": tokens, "seconds": seconds}

    def die(self, way: str) -> str:
        """Let an engine die of a request; what the caller got."""
        info = evolve(self._info, factory=f"{crashing_engines.__name__}:{way}")
        with llmcore.get_llama(isolated(info, watchdog=WATCHDOG)) as llama:
            sequence = self._sequence(llama)
            try:
                sequence.generate([BAD], max_tokens=TOKENS).result  # noqa: B018
            except BackendCrashedError as crash:
                how = str(crash).partition(";")[0].partition(" engine ")[2]
                return f"`BackendCrashedError`: {how}"
        return "an answer"

    def _sequence(self, llama: llmcore.Llama) -> llmcore.Sequence:
        model = llama.load_model(self._path)
        return model.create_context(context_size=256, threads=1).get_sequence()

    def damage(self, kind: str, count: int) -> dict[str, dict[str, int]]:
        """Try some damaged files: what became of them, and how children ended."""
        fates = Counter[str]()
        self._trials.endings.clear()
        for file in itertools.islice(self._files[kind], count):
            try:
                fates[fate := self._trials.fate(file)] += 1
                fates["let through"] += fate == "crashed" and passes(file)
            except Exception as error:  # which must not be
                fates[type(error).__name__] += 1
        return {"fates": fates, "endings": self._trials.endings}


def passes(file: Path) -> bool:
    """Whether core would have given the file to an engine."""
    try:
        check_model_file(file)
    except ModelLoadError:
        return False
    return True


def tiny_files(folder: Path, seed: int) -> Iterator[Path]:
    """One after the other under the same name."""
    file = folder / "tiny.gguf"
    for raw in mutations(tiny_image(), sys.maxsize, seed):
        file.write_bytes(raw)
        yield file


def real_files(path: Path, folder: Path, seed: int) -> Iterator[Path]:
    """The same copy again and again."""
    chance, header = random.Random(seed), read_gguf_header(path).data_offset
    file = Path(shutil.copy(path, folder / "real.gguf"))
    while True:
        with damaged(file, header, chance):
            yield file


def next_request(program: Side, expected: list[int]) -> tuple[str, str, str]:
    """Three cells: whether the program lives, whether it serves, and in what time."""
    try:
        answer = program("answer")
    except SideError as error:
        return str(error), "no", "-"
    right = "right answer" if answer["tokens"] == expected else "wrong answer"
    return "alive", right, f"{answer['seconds']:.1f}"


def deaths(program: Side, expected: list[int]) -> Iterator[tuple[str, ...]]:
    """A row for each way."""
    for way, words in WAYS.items():
        try:
            got = program("die", way=way)
        except SideError as error:
            got = str(error)
        yield words, got, *next_request(program, expected)


def files(program: Side, expected: list[int], kind: str, count: int) -> tuple[str, ...]:
    """A row for so many damaged files."""
    fates, endings, after = Counter[str](), Counter[str](), Counter[str]()
    for start in range(0, count, AT_ONCE):
        found = program("damage", kind=kind, count=min(AT_ONCE, count - start))
        fates.update(found["fates"])
        endings.update(found["endings"])
        lives, serves, _ = next_request(program, expected)
        after[f"{lives}, {serves}"] += 1
    refused, evaluated, crashed, through = (
        str(fates.pop(fate, 0))
        for fate in ("refused", "evaluated", "crashed", "let through")
    )
    usual = str(count), refused, evaluated, crashed, listed(endings), through
    return *usual, listed(fates), listed(after)


def listed(counts: Counter[str]) -> str:
    """In words."""
    return ", ".join(f"{what}: {n}" for what, n in counts.most_common()) or "none"


def arguments() -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=str(demo_model()))
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", metavar="FOLDER", help="be the program")
    return parser.parse_args()


def main() -> None:
    """Print the two tables."""
    args = arguments()
    if args.program:
        jobs = Jobs(args.model, args.program, args.seed)
        serve(answer=jobs.answer, die=jobs.die, damage=jobs.damage)
        return
    command = sys.executable, "-m", "benchmarks.crashes", args.model
    with (
        tempfile.TemporaryDirectory() as folder,
        Side((*command, f"--seed={args.seed}", f"--program={folder}")) as program,
    ):
        expected = program("answer")["tokens"]
        print(table(DEATHS, deaths(program, expected)), end="\n\n", flush=True)
        half = args.files // 2
        rows = [
            (name, *files(program, expected, kind, count))
            for kind, name, count in (
                ("tiny", "a tiny model", half),
                ("real", "the model", args.files - half),
            )
        ]
    print(table(FILES, rows))


if __name__ == "__main__":
    main()
