"""
Loads that are stopped, and contexts that cannot be made.
"""

from __future__ import annotations

import resource as limits

import llmcore
from fault_scenarios.kit import answer, error_of, make_model, model_path
from fault_scenarios.table import scenario


@scenario(
    "OperationCancelledError: .*cancelled at 0%.*cancelled at 100%", real_model=True
)
def cancelled_at_the_start_the_middle_and_the_end() -> None:
    """Returning False from the progress callback ends the load, whenever it comes."""
    llama = llmcore.get_llama("llama_cpp")
    for point in (0.0, 0.5, 1.0):
        shares: list[float] = []

        def progress(share: float, point: float = point) -> bool:
            shares.append(share)  # noqa: B023
            return share < point

        load = lambda p=progress: llama.load_model(model_path(), progress=p)  # type: ignore[misc] # noqa: E731
        print(error_of(load))
        assert shares[-1] >= point
        assert sum(share >= point for share in shares) == 1, shares
        assert len(llama.resources()) == 1
    assert answer(llama.load_model(model_path()).create_context().get_sequence())


@scenario("ZeroDivisionError: .*then it loads")
def progress_callback_raises() -> None:
    """What a progress callback raises comes out of the load."""
    llama = llmcore.get_llama("llama_cpp")
    load = lambda: llama.load_model(model_path(), progress=lambda _: 1 / 0)  # noqa: E731
    message = error_of(load)
    llama.load_model(model_path())
    print(f"{message}; then it loads")


@scenario("(?:InsufficientMemory|ContextCreation)Error: cannot create a context")
def context_of_absurd_size() -> None:
    """No machine has so much memory; the model works on and nothing is held."""
    model = make_model()
    print(error_of(lambda: model.create_context(context_size=2**31 - 1)))
    _works_on(model)


@scenario("InsufficientMemoryError: a context of .*ulimit -v.*needs .* but lacks")
def context_without_memory() -> None:
    """The process has less memory than the context needs."""
    model = make_model()
    limits.setrlimit(limits.RLIMIT_AS, (4 << 30, limits.RLIM_INFINITY))
    for _ in range(16):
        message = error_of(lambda: model.create_context(context_size=2**26))
    print(message)
    _works_on(model)


def _works_on(model: llmcore.Model) -> None:
    assert len(llmcore.resources(model._node)) == 1
    with model.create_context(context_size=64) as context:
        assert answer(context.get_sequence(), max_tokens=2) is not None
    assert model.dispose_if_unused()
