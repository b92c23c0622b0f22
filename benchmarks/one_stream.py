"""
One stream of llmcore against the raw C API of the same library, in one process.

Both do the same work: greedy tokens after a short prompt, and the evaluation of a long
prompt. Runs are interleaved in pairs of alternating order; the ratio is llmcore's speed
divided by the raw speed of the same pair, so 1.00 is the speed of the engine.

    python benchmarks/one_stream.py MODEL.gguf
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable

import llama_cpp.llama_cpp as C

import llmcore
from llmcore.cli.demo import demo_model

CONTEXT, BATCH = 1024, 512


class Raw:
    """The loop that everybody writes over the C API, on a context of its own."""

    def __init__(self, path: str, threads: int) -> None:
        C.llama_backend_init()
        model_params = C.llama_model_default_params()
        self.model = C.llama_model_load_from_file(path.encode(), model_params)
        params = C.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = CONTEXT, BATCH, BATCH
        params.n_threads = params.n_threads_batch = threads
        self.context = C.llama_init_from_model(self.model, params)
        self.vocab = C.llama_model_get_vocab(self.model)
        self.memory = C.llama_get_memory(self.context)
        chain = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        C.llama_sampler_chain_add(chain, C.llama_sampler_init_greedy())
        self.sampler = chain

    def prompt(self, tokens: list[int]) -> None:
        C.llama_memory_clear(self.memory, False)
        array = (C.llama_token * len(tokens))(*tokens)
        assert (
            C.llama_decode(self.context, C.llama_batch_get_one(array, len(tokens))) == 0
        )

    def generate(self, tokens: list[int], count: int) -> list[int]:
        self.prompt(tokens)
        drawn: list[int] = []
        buffer = ctypes.create_string_buffer(128)
        one = (C.llama_token * 1)()
        while True:
            token = C.llama_sampler_sample(self.sampler, self.context, -1)
            drawn.append(token)
            C.llama_token_to_piece(self.vocab, token, buffer, 128, 0, False)
            if len(drawn) == count:
                return drawn
            one[0] = token
            assert C.llama_decode(self.context, C.llama_batch_get_one(one, 1)) == 0

    def close(self) -> None:
        C.llama_sampler_free(self.sampler)
        C.llama_free(self.context)
        C.llama_model_free(self.model)


def pairs(
    ours: Callable[[], object], raw: Callable[[], object], count: int
) -> tuple[list[float], float, float]:
    """Ratios of the pairs, and the median seconds of each side."""
    ratios, mine, theirs = [], [], []
    ours(), raw()  # warm
    for number in range(count):
        order = (ours, raw) if number % 2 else (raw, ours)
        took = {work: _seconds(work) for work in order}
        mine.append(took[ours])
        theirs.append(took[raw])
        ratios.append(took[raw] / took[ours])
    return ratios, statistics.median(mine), statistics.median(theirs)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(ratios: list[float]) -> str:
    """Median and spread, for people."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return (
        f"median {middle:.3f}, quartiles {low:.3f} to {high:.3f}, "
        f"range {min(ratios):.3f} to {max(ratios):.3f}, {len(ratios)} pairs"
    )


def main() -> None:
    """Print both ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=str(demo_model()))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    with llmcore.get_llama("llama_cpp") as llama:
        model = llama.load_model(args.model)
        context = model.create_context(
            context_size=CONTEXT, batch_size=BATCH, threads=args.threads
        )
        sequence = context.get_sequence()
        raw = Raw(args.model, args.threads)
        short = model.tokenize("The capital of France is", add_bos=model.info.add_bos)
        long = (model.tokenize("A long story about many things. ") * 200)[:BATCH]

        def ours() -> tuple[int, ...]:
            sequence.clear()
            stream = sequence.generate(short, max_tokens=args.tokens)
            for _ in stream:
                pass
            return stream.result.tokens

        def prompt() -> None:
            sequence.clear()
            sequence.evaluate(long)

        same = list(ours()) == raw.generate(short, args.tokens)
        generation = pairs(ours, lambda: raw.generate(short, args.tokens), args.pairs)
        evaluation = pairs(prompt, lambda: raw.prompt(long), args.pairs)
        raw.close()

    if args.json:
        print(json.dumps({"generation": generation, "prompt": evaluation}))
        return
    print(f"same tokens: {same}")
    for name, count, (ratios, mine, theirs) in (
        ("one stream", args.tokens, generation),
        ("prompt", len(long), evaluation),
    ):
        print(f"{name}: llmcore {count / mine:.1f} tokens/s, raw {count / theirs:.1f}")
        print(f"  ratio: {spread(ratios)}")


if __name__ == "__main__":
    main()
