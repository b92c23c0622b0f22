"""
Objects that nobody disposes, and memory that must come back.
"""

from __future__ import annotations

import gc
import os
import warnings
import weakref

import llmcore
from fault_scenarios.kit import (
    answer,
    make_context,
    make_model,
    make_stack,
    model_path,
    prompt_tokens,
)
from fault_scenarios.table import scenario
from llmcore import ChatSession
from llmcore.lifecycle import collect_forgotten

MIB = 1 << 20


def resident() -> float:
    """Resident memory of this process, in MiB."""
    import psutil

    return float(psutil.Process(os.getpid()).memory_info().rss) / MIB


@scenario("10000 dropped, 8 of 8 left")
def sequences_that_are_dropped() -> None:
    """Ten thousand sequences, taken and forgotten."""
    context = make_context(sequences=8, context_size=64)
    for number in range(10_000):
        sequence = context.get_sequence()
        if number % 10 == 0:
            sequence.evaluate([1])
        if number % 100 == 0:
            next(sequence.generate([1, 2, 3]))  # and its stream as well
        del sequence
    collect_forgotten()
    left = context.sequences_left
    assert len(llmcore.resources(context._node)) == 1
    assert context.memory_info().token_count == 0
    print(f"{number + 1} dropped, {left} of {context.params.sequences} left")


@scenario("collected, with ResourceWarnings")
def everything_in_a_cycle() -> None:
    """A whole stack in a reference cycle, collected at once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(20):
            stack = make_stack()
            stream = stack.sequence.generate([1, 2, 3])
            next(stream)
            cycle = [stack, stream]
            cycle.append(cycle)  # type: ignore[arg-type]
            gone = weakref.ref(stack.model)
            del stack, stream, cycle
            gc.collect()
            assert gone() is None
        collect_forgotten()
    assert not llmcore.resources(), llmcore.format_tree()
    told = [str(w.message) for w in caught if w.category is ResourceWarning]
    # One for each object, but for those that went with an object above them first.
    assert 20 <= len(told) <= 100, told
    print("collected, with ResourceWarnings")


@scenario("memory is back at once")
def dispose_gives_memory_back_without_the_collector() -> None:
    """With the collector off and all names still there, memory comes back."""
    gc.disable()
    make_stack().llama.dispose()  # the engine itself is loaded now
    before = resident()
    model = make_model()
    context = model.create_context(context_size=65_536)  # tens of MiB
    held = resident()
    model.dispose()
    after = resident()
    assert held > before + 20, (before, held, after)
    assert after < before + 2, (before, held, after)
    print(f"{before:.0f} -> {held:.0f} -> {after:.0f} MiB: memory is back at once")
    assert context.disposed


@scenario("50 cycles")
def memory_of_load_chat_dispose() -> None:
    """Loading, chatting and disposing again and again does not grow."""
    sizes = []
    for _ in range(60):
        with llmcore.get_llama("llama_cpp") as llama:
            context = llama.load_model(model_path()).create_context(context_size=512)
            ChatSession(context.get_sequence()).prompt("hello", max_tokens=4)
        sizes.append(resident())
    grown = sizes[-1] - sizes[9]
    assert grown < 2, sizes
    print(f"50 cycles: {sizes[9]:.1f} -> {sizes[-1]:.1f} MiB")


@scenario("1000 streams")
def streams_that_are_dropped() -> None:
    """A stream that is dropped frees the sequence at once, and its sampler later."""
    sequence = make_context().get_sequence()
    tokens = prompt_tokens(sequence.context.model)
    alone = answer(sequence)
    for _ in range(1000):
        next(sequence.generate(tokens, temperature=1.0))
    assert answer(sequence) == alone
    held = len(sequence._engine.samplers._alive)
    assert held <= 1, held
    print("1000 streams")
