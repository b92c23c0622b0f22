"""The ladder under a real limit: a process that may map only so much memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LIMITED = """
import json, resource, sys
from pathlib import Path

import llmcore
from llmcore.errors import InsufficientMemoryError
from llmcore.memory.choosing import allowed, context_plan, create, shortages
from llmcore.memory.estimate import estimate_context
from llmcore.memory.ladder import Room
from llmcore.memory.shape import ModelShape
from llmcore.model_file import read_gguf_header
from llmcore.params import ContextParams

path, spares = sys.argv[1], [int(text) for text in sys.argv[2:]]
shape = ModelShape.of(read_gguf_header(path))
room = Room(
    estimate=lambda plan: estimate_context(shape, plan.context),
    shortage=shortages("the context", None),
    allows=allowed(shape),
)
params = ContextParams(context_size=(512, 8192))


def mapped():
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(s.split()[1]) << 10 for s in status if s.startswith("VmSize"))


def answer(model, fit):
    plan = context_plan(params, frozenset(), model.info.trained_context)
    made, fitted = create(
        plan, lambda plan: model.create_context(plan.context), room, fit
    )
    with made as context, context.get_sequence() as sequence:
        prompt = model.tokenize("The capital of France is")
        answer = sequence.generate(prompt, temperature=0.0, max_tokens=1)
        given = made.params
        return {
            "text": "".join(event.text for event in answer),
            "size": given.context_size,
            "types": [given.kv_type_k, given.kv_type_v],
            "batch": given.batch_size,
            "steps": [step.sentence for step in fitted.steps],
        }


with llmcore.get_llama("llama_cpp") as llama, llama.load_model(path) as model:
    for spare in spares:
        limit = mapped() + spare
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        for fit in (False, True):
            try:
                found = answer(model, fit)
            except InsufficientMemoryError as error:
                found = {"error": str(error), "story": error.account.explain()}
            print(json.dumps([spare, fit, found]), flush=True)
"""

MIB = 1 << 20
SPARES = [0, 200, 250, 270, 280, 400, 1000]
"""MiB that a process may map besides what it has when it wants a context."""


@pytest.fixture(name="found", scope="module")
def _found(smollm2: Path) -> dict[tuple[int, bool], Any]:
    """What a process got, by how much it had and whether it went down the ladder."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux holds a process to its limit of address space")
    spares = [str(spare * MIB) for spare in SPARES]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED, str(smollm2), *spares],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (0, "") == (done.returncode, done.stderr)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(spare // MIB, fit): what for spare, fit, what in lines}


def test_no_limit_ends_the_process(found):
    """However little there is, the engine never ends the process for lack of it."""
    assert {(spare, fit) for spare in SPARES for fit in (False, True)} == set(found)


def test_enough_takes_no_step(found):
    """With enough memory the context is what was asked for."""
    for fit in (False, True):
        assert [8192, []] == [found[1000, fit]["size"], found[1000, fit]["steps"]]


def test_what_does_not_fit_is_refused(found):
    """Without a ladder a context that cannot be is refused, and the limit is named."""
    refused = found[270, False]
    assert "in the address space that 'ulimit -v' allows" in refused["error"]
    assert "what an engine maps besides" in refused["story"]


def test_the_ladder_gets_a_context_that_answers(found):
    """Where the context as it was asked for fails, the ladder's works and answers."""
    made = found[280, True]
    assert "error" in found[280, False]
    assert " Paris" == made["text"] == found[1000, False]["text"]
    assert (64, ["q4_0", "q4_0"]) == (made["batch"], made["types"])
    assert made["steps"][0].startswith("smaller batch (batch_size 512 to 256")
    assert made["steps"][-1].startswith("smaller context")


def test_a_range_takes_what_fits(found):
    """Without a ladder a range comes to what fits, and nothing else changes."""
    made = found[400, False]
    assert 512 < made["size"] < 8192
    assert (["f16", "f16"], 512, []) == (made["types"], made["batch"], made["steps"])


def test_the_end_of_the_ladder_tells_everything(found):
    """Where nothing fits, each step is told with its bytes."""
    refused = found[0, True]
    assert "steps down the ladder gained" in refused["error"]
    assert refused["story"].count("gained") > 5
