"""llama-cpp-python's `Llama`: one object for all streams, as it is one sequence."""

from __future__ import annotations

from typing import Any

from benchmarks.child import generated, in_threads, serve, timed


class Jobs:
    """What `benchmarks.streams` asks of a peer."""

    def open(self, path: str, context_size: int, sequences: int, threads: int) -> None:
        """Load the model."""
        from llama_cpp import Llama

        self.llama: Any = Llama(
            path,
            n_ctx=context_size,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )

    def generate(self, texts: list[str], count: int) -> dict[str, object]:
        """Greedy tokens for each text, from threads."""
        self.llama.reset()

        def read(number: int) -> tuple[str, int]:
            stream = self.llama(
                texts[number],
                max_tokens=count,
                temperature=0.0,
                repeat_penalty=1.0,
                stream=True,
            )
            pieces = [chunk["choices"][0]["text"] for chunk in stream]
            return "".join(pieces), sum(map(bool, pieces))

        seconds, answers = timed(lambda: in_threads(read, len(texts)))
        return generated(seconds, [a[0] for a in answers], [a[1] for a in answers])


if __name__ == "__main__":
    jobs = Jobs()
    serve(open=jobs.open, generate=jobs.generate)
