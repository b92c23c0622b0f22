"""
Estimated memory against what the engine reports, over a grid of contexts.

    python -m benchmarks.estimates [--all]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import llmcore
from llmcore.cli.demo import demo_model
from llmcore.memory import size_text
from llmcore.memory.estimate import estimate
from llmcore.params import ContextParams
from llmcore_conformance import models

Make = Callable[[Path], Path]

MODELS: Mapping[str, Make] = {
    "llama, tiny": models.tiny_llama,
    "llama": lambda path: models.tiny_llama(
        path,
        layers=4,
        embedding=512,
        heads=8,
        kv_heads=2,
        feed_forward=1024,
        context=8192,
    ),
    "gemma3, tiny": models.tiny_sliding_window,
    "gemma3": lambda path: models.tiny_sliding_window(
        path, embedding=512, window=512, context=8192
    ),
    "mamba, tiny": models.tiny_recurrent,
    "mamba": lambda path: models.tiny_recurrent(path, layers=4, embedding=512),
    "bert, tiny": models.tiny_embedding,
    "bert": lambda path: models.tiny_embedding(
        path, layers=4, embedding=512, context=8192
    ),
}
SIZES = (512, 1024, 4096, 8192)
BATCHES = ((512, 512), (2048, 512), (256, 64), (2048, 2048))
KINDS = ("f32", "f16", "q8_0", "q4_0")
SEQUENCES = (1, 4)


class Point(NamedTuple):
    """One context: bytes as estimated, and as reported."""

    model: str
    params: ContextParams
    expected: int
    actual: int

    @property
    def error(self) -> float:
        return self.expected / self.actual - 1

    def row(self) -> str:
        """A line of the table."""
        p = self.params
        cells = (
            *(self.model, p.context_size, p.sequences, p.batch_size),
            *(p.micro_batch_size, p.kv_type_k, p.flash_attention),
            *(size_text(self.expected), size_text(self.actual), f"{self.error:+.2%}"),
        )
        return f"| {' | '.join(map(str, cells))} |"


def grid(*, encoder: bool, keys: bool, longest: int) -> Iterator[ContextParams]:
    """All contexts that the engine accepts."""
    for size, (batch, micro), kind, sequences, flash in itertools.product(
        SIZES, BATCHES, KINDS, SEQUENCES, ("auto", False)
    ):
        if not flash and kind.startswith("q"):
            continue
        if encoder and size > longest:
            continue
        if not keys and kind != "f16":
            continue
        yield ContextParams(
            context_size=size,
            batch_size=batch,
            micro_batch_size=micro,
            kv_type_k=kind,
            kv_type_v=kind,
            sequences=sequences,
            flash_attention=flash,
            embeddings=encoder,
        )


def points(name: str, path: Path) -> Iterator[Point]:
    """The grid of one model."""
    with llmcore.get_llama("llama_cpp") as llama:
        model = llama.load_model(path, gpu_layers=0)
        kind, longest = model.info.cache_kind, model.info.trained_context
        encoder, keys = kind == "none", kind not in ("none", "recurrent")
        for params in grid(encoder=encoder, keys=keys, longest=longest):
            with model.create_context(params) as context:
                actual = context.memory_info().total_allocated
            expected = estimate(path, context=params, gpu_layers=0).total
            yield Point(name, params, expected, actual)


def main() -> None:
    """Print the worst of each model, or everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="print every context")
    everything = parser.parse_args().all
    print("| model | tokens | sequences | batch | micro | cache | flash ", end="")
    print("| estimated | reported | error |\n" + "|---" * 10 + "|")
    found: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        files = {n: make(Path(folder) / f"{n}.gguf") for n, make in MODELS.items()}
        if demo := demo_model():
            files = {"SmolLM2": demo, **files}
        for name, path in files.items():
            ours = sorted(points(name, path), key=lambda point: -abs(point.error))
            for point in ours if everything else ours[:1]:
                print(point.row(), flush=True)
            found += ours
    worst = max(abs(point.error) for point in found)
    mean = sum(abs(point.error) for point in found) / len(found)
    print(f"\n{len(found)} contexts: worst error {worst:.2%}, mean {mean:.2%}")


if __name__ == "__main__":
    main()
