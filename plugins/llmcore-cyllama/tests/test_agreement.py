"""cyllama and llama-cpp-python bind the same engine: they must say the same."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Two builds of the engine must not meet in one process, so each has one of its own.
REPORT = """
import json, sys
import llmcore

backend, path = sys.argv[1:]
TEXTS = ["Hello, w\u00f6rld \u2603 <|im_start|> x\\0y", "", "  two\\n\\n\\tlines"]
with llmcore.get_llama(backend) as llama:
    model = llama.load_model(path, gpu_layers=0)
    facts = {name: getattr(model.info, name) for name in FACTS}
    facts["end_tokens"] = sorted(facts["end_tokens"])
    facts["capabilities"] = sorted(facts["capabilities"])
    report = {"facts": facts}
    report["tokens"] = [list(model.tokenize(text)) for text in TEXTS]
    report["pieces"] = [model.piece(t).hex() for t in range(model.info.vocab_size)]
    if "logits" in facts["capabilities"]:
        context = model.create_context(context_size=256, sequences=3, threads=1)
        sequences = [context.get_sequence() for _ in range(3)]
        streams = [
            sequence.generate(model.tokenize(f"Tell me {number}"), max_tokens=24)
            for number, sequence in enumerate(sequences)
        ]
        report["answers"] = [list(stream.result.tokens) for stream in streams]
        report["cache"] = context.memory_info().kv_cache_size
json.dump(report, sys.stdout)
"""
FACTS = [
    "architecture",
    "vocab_size",
    "name",
    "description",
    "fingerprint",
    "trained_context",
    "embedding_size",
    "layers",
    "heads",
    "kv_heads",
    "parameters",
    "size_bytes",
    "cache_kind",
    "bos_token",
    "eos_token",
    "add_bos",
    "end_tokens",
    "special_tokens",
    "chat_template",
    "metadata",
    "capabilities",
]


def report(backend: str, path: Path) -> Any:
    """What a backend says about a model and answers with it."""
    done = subprocess.run(
        [sys.executable, "-c", f"FACTS = {FACTS!r}\n{REPORT}", backend, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="needs llama-cpp-python to compare with",
)
@pytest.mark.parametrize("kind", ["llama", "sliding", "recurrent", "embedding"])
def test_like_llama_cpp(paths: dict[str, Path], kind: str) -> None:
    """Facts, tokens, pieces, greedy answers and the size of the cache are equal."""
    ours, theirs = report("cyllama", paths[kind]), report("llama_cpp", paths[kind])
    if "gpu" in ours["facts"]["capabilities"]:
        theirs["facts"]["capabilities"] = sorted(
            {*theirs["facts"]["capabilities"], "gpu"}
        )

    assert ours == theirs
