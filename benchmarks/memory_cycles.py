"""
Does memory come back: resident size over load-chat-dispose cycles, and right after one
`dispose()` with the garbage collector off.

    python benchmarks/memory_cycles.py [MODEL.gguf] [--cycles 300]
"""

from __future__ import annotations

import argparse
import gc

import psutil  # type: ignore[import-untyped]

import llmcore
from llmcore.cli.demo import demo_model

MIB = 1 << 20


def resident() -> float:
    """Of this process, in MiB."""
    return float(psutil.Process().memory_info().rss) / MIB


def cycle(path: str) -> None:
    """Load, say something, dispose."""
    with llmcore.get_llama("llama_cpp") as llama:
        model = llama.load_model(path)
        context = model.create_context(context_size=256)
        chat = llmcore.ChatSession(context.get_sequence(), system_prompt="Be brief.")
        chat.prompt("Hello", max_tokens=4)


def after_dispose(path: str) -> None:
    """The resident size before, with, and after a model that is read into memory."""
    gc.disable()
    with llmcore.get_llama("llama_cpp") as llama:
        before = resident()
        model = llama.load_model(path, mmap=False)
        context = model.create_context(context_size=2048)
        sequence = context.get_sequence()
        sequence.evaluate(model.tokenize("Memory in use. " * 100)[:400])
        loaded = resident()
        model.dispose()
        print(
            f"gc off: {before:.1f} MiB before, {loaded:.1f} with model and context, "
            f"{resident():.1f} right after model.dispose()"
        )
    gc.enable()


def main() -> None:
    """Print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(demo_model()))
    parser.add_argument("--cycles", type=int, default=300)
    args = parser.parse_args()
    cycle(args.model)
    after_dispose(args.model)
    marks = {1, 50, 100, 200, args.cycles}
    for number in range(1, args.cycles + 1):
        cycle(args.model)
        if number in marks:
            print(f"cycle {number}: {resident():.1f} MiB")


if __name__ == "__main__":
    main()
