"""``llmcore inspect``: what the header of a model file says."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcore.cli.options import ModelPath, header_of

if TYPE_CHECKING:
    from llmcore.gguf_header import GGUFHeader


def inspect(
    model: ModelPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a model is, without loading it."""
    facts = _facts(header_of(model))
    if as_json:
        print(json.dumps(facts))
        return
    tensors = facts.pop("tensors")
    wide = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):{wide}}  {_told(name, value)}")
    for kind, of_kind in tensors.items():
        text = f"{of_kind['count']} of {kind}, {_told('bytes', of_kind['bytes'])}"
        print(f"{'tensors':{wide}}  {text}")


def _facts(header: GGUFHeader) -> dict[str, Any]:
    """Plain values; no lists of tokens."""
    from llmcore.memory.shape import ModelShape

    shape, metadata = ModelShape.of(header), header.metadata
    tensors = _tensors(header)
    return {
        "name": shape.name,
        "architecture": shape.architecture,
        "parameters": sum(math.prod(tensor.shape) for tensor in header.tensors),
        "quantisation": max(tensors, key=lambda t: tensors[t]["bytes"], default=""),
        "bytes": sum(tensor.size for tensor in header.tensors),
        "layers": len(shape.layers),
        "heads": max((layer.heads for layer in shape.layers), default=0),
        "kv_heads": max((layer.kv_heads for layer in shape.layers), default=0),
        "embedding_size": shape.embedding,
        "trained_context": shape.trained_context,
        "vocabulary": shape.vocabulary,
        "cache": str(shape.cache_kind),
        "chat_template": "tokenizer.chat_template" in metadata,
        "licence": str(metadata.get("general.license", "")),
        "gguf_version": header.version,
        "tensors": tensors,
    }


def _tensors(header: GGUFHeader) -> dict[str, dict[str, int]]:
    """How many tensors of each type, and their bytes; the most bytes first."""
    sums: dict[str, dict[str, int]] = {}
    for tensor in header.tensors:
        of_type = sums.setdefault(tensor.type, {"count": 0, "bytes": 0})
        of_type["count"] += 1
        of_type["bytes"] += tensor.size
    return dict(sorted(sums.items(), key=lambda item: -item[1]["bytes"]))


def _told(name: str, value: Any) -> str:
    """A value for people."""
    from llmcore.memory import size_text

    if name == "bytes":
        return size_text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:_}".replace("_", " ") if isinstance(value, int) else str(value)
