"""A storm on a `ModelManager`: 16 threads, six models, a budget for three."""

from __future__ import annotations

from typing import Any

from llmcore.manager import ModelManager
from llmcore.testing import NullScript, null_backend

from .storm import MINUTES, MODELS, Kind, Storm, answers_of

SIZE = 1_000_000


def null_kinds() -> tuple[list[Kind], list[Any]]:
    """Six null models that speak differently, and the engines made for them."""
    engines: list[Any] = []

    def kind(number: int) -> Kind:
        name = f"model-{number}"

        def engine() -> Any:
            script = NullScript(name=name, model_bytes=SIZE, kv_bytes_per_token=0)
            engines.append(null_backend(script))
            return engines[-1]

        def load(manager: ModelManager, id: str, options: dict[str, Any]) -> object:
            return manager.load(
                id,
                backend=engine(),
                reserve=SIZE,
                context_size=64,
                sequences=2,
                **options,
            )

        return Kind(id=name, load=load, answers=answers_of(engine()))

    return [kind(number) for number in range(MODELS)], engines


def used_by(engines: list[Any]) -> int:
    """
    Bytes that they use at one moment.

    Each is looked at twice: an engine has one model in its life, so one that used the
    same both times did so in between, too.
    """
    seen = list(engines)
    while True:
        first, second = (
            [engine.ledger.used_bytes for engine in seen] for _ in range(2)
        )
        if first == second:
            return sum(first)


def test_null_models() -> None:
    """No answer is wrong, no accepted request is lost, no budget overrun, no hang."""
    kinds, engines = null_kinds()
    with ModelManager(budget=3 * SIZE, headroom=0.0, name=None) as manager:
        storm = Storm(manager, kinds, max_tokens=8, used=lambda: used_by(engines))
        storm.run(16, seed=7, operations=1000, seconds=60 * MINUTES)
        storm.report()
    assert storm.wrong == []
    assert storm.done["ask: answered"] > 100
    assert storm.done["load: loaded"] > 50
    assert all(engine.ledger.violations == [] for engine in engines)
    assert all(set(engine.ledger.live) <= {"backend"} for engine in engines)
