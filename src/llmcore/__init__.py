"""
llmcore: run local language models through any engine, with resources that have a
specified life.

Importing this loads nothing else: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Backend": "spi",
    "BackendInfo": "values",
    "Budget": "memory",
    "CacheReport": "events",
    "Capability": "values",
    "Chat": "chat",
    "ChatSession": "chat",
    "Context": "context",
    "ContextParams": "values",
    "Device": "values",
    "Footprint": "memory",
    "GenerationConfig": "llm",
    "GenerationParams": "values",
    "GenerationResult": "engine.generation",
    "LLM": "llm",
    "Llama": "llama",
    "Message": "chat_history",
    "Model": "model",
    "ModelInfo": "values",
    "ModelManager": "manager",
    "ModelParams": "values",
    "Receipt": "engine.receipt",
    "Resource": "lifecycle",
    "SamplingParams": "values",
    "Scope": "lifecycle",
    "Sequence": "sequence",
    "Shift": "values",
    "Source": "sources",
    "Stream": "stream",
    "TextDelta": "events",
    "default_llama": "opening",
    "errors": "",
    "estimate": "memory.estimate",
    "events": "",
    "format_tree": "lifecycle",
    "get_llama": "opening",
    "hookimpl": "hookspecs",
    "introspection": "",
    "prediction": "",
    "recommend": "memory.recommend",
    "resources": "lifecycle",
    "sources": "",
    "telemetry": "",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'llmcore' has no attribute {name!r}")
    if home == "":
        return importlib.import_module(f"llmcore.{name}")
    value = getattr(importlib.import_module(f"llmcore.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if TYPE_CHECKING:
    from llmcore import errors as errors
    from llmcore import events as events
    from llmcore import introspection as introspection
    from llmcore import prediction as prediction
    from llmcore import sources as sources
    from llmcore import telemetry as telemetry
    from llmcore.chat import Chat as Chat
    from llmcore.chat import ChatSession as ChatSession
    from llmcore.chat_history import Message as Message
    from llmcore.context import Context as Context
    from llmcore.engine.generation import GenerationResult as GenerationResult
    from llmcore.engine.receipt import Receipt as Receipt
    from llmcore.events import CacheReport as CacheReport
    from llmcore.events import TextDelta as TextDelta
    from llmcore.hookspecs import hookimpl as hookimpl
    from llmcore.lifecycle import Resource as Resource
    from llmcore.lifecycle import Scope as Scope
    from llmcore.lifecycle import format_tree as format_tree
    from llmcore.lifecycle import resources as resources
    from llmcore.llama import Llama as Llama
    from llmcore.llm import LLM as LLM
    from llmcore.llm import GenerationConfig as GenerationConfig
    from llmcore.manager import ModelManager as ModelManager
    from llmcore.memory import Budget as Budget
    from llmcore.memory import Footprint as Footprint
    from llmcore.memory.estimate import estimate as estimate
    from llmcore.memory.recommend import recommend as recommend
    from llmcore.model import Model as Model
    from llmcore.opening import default_llama as default_llama
    from llmcore.opening import get_llama as get_llama
    from llmcore.sequence import Sequence as Sequence
    from llmcore.sources import Source as Source
    from llmcore.spi import Backend as Backend
    from llmcore.stream import Stream as Stream
    from llmcore.values import BackendInfo as BackendInfo
    from llmcore.values import Capability as Capability
    from llmcore.values import ContextParams as ContextParams
    from llmcore.values import Device as Device
    from llmcore.values import GenerationParams as GenerationParams
    from llmcore.values import ModelInfo as ModelInfo
    from llmcore.values import ModelParams as ModelParams
    from llmcore.values import SamplingParams as SamplingParams
    from llmcore.values import Shift as Shift
