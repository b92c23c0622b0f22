"""cyllama's `LLM`: one object for all streams, as it is one sequence."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.child import generated, in_threads, serve, timed


class Jobs:
    """What `benchmarks.streams` asks of a peer."""

    def open(self, path: str, context_size: int, sequences: int, threads: int) -> None:
        """Load the model."""
        cyllama: Any = importlib.import_module("cyllama")
        self.config: dict[str, Any] = {
            "n_ctx": context_size,
            "n_threads": threads,
            "n_threads_batch": threads,
            "temperature": 0.0,
            "repeat_penalty": 1.0,
        }
        self.make_config = cyllama.GenerationConfig
        self.llm = cyllama.LLM(path, config=self.make_config(**self.config))

    def generate(self, texts: list[str], count: int) -> dict[str, object]:
        """Greedy tokens for each text, from threads."""
        config = self.make_config(max_tokens=count, **self.config)

        def read(number: int) -> tuple[str, int]:
            pieces = list(self.llm(texts[number], config=config, stream=True))
            return "".join(pieces), sum(map(bool, pieces))

        seconds, answers = timed(lambda: in_threads(read, len(texts)))
        return generated(seconds, [a[0] for a in answers], [a[1] for a in answers])


if __name__ == "__main__":
    jobs = Jobs()
    serve(open=jobs.open, generate=jobs.generate)
