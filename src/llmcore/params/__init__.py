"""
Parameters: how to load a model, create a context, choose a token, generate an answer.

A bad value raises `ValueError` (or `TypeError`) naming the field before any native
code runs. No default here is inherited from an engine: what stands here is what every
backend is told.
"""

from __future__ import annotations

from llmcore.params.context import KV_TYPES, ContextParams
from llmcore.params.generation import GenerationParams, Shift
from llmcore.params.loading import ModelParams
from llmcore.params.merging import merge, merge_options
from llmcore.params.sampling import SamplingParams
from llmcore.params.validators import one_of

__all__ = [
    "KV_TYPES",
    "ContextParams",
    "GenerationParams",
    "ModelParams",
    "SamplingParams",
    "Shift",
    "merge",
    "merge_options",
    "one_of",
]
