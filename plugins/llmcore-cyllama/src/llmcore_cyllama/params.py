"""Our parameters as cyllama's; nothing is left to its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcore.backends.llama_cpp.fields import context_fields, model_fields
from llmcore.values import ContextParams, ModelInfo, ModelParams
from llmcore_cyllama.engine import C

LOAD_MODES = {
    (True, True): C.LLAMA_LOAD_MODE_MMAP_MLOCK,
    (True, False): C.LLAMA_LOAD_MODE_MMAP,
    (False, True): C.LLAMA_LOAD_MODE_MLOCK,
    (False, False): C.LLAMA_LOAD_MODE_NONE,
}
"""By ``mmap`` and ``mlock``."""

# What llmcore does not offer, with the value that it stands for.
MODEL_CONSTANTS = {"lazy_mode": C.LLAMA_LAZY_MODE_AUTO}
CONTEXT_CONSTANTS = {"moe_cache_size": 0, "ctx_type": C.LLAMA_CONTEXT_TYPE_DEFAULT}


def model_params(params: ModelParams, progress: Any) -> Any:
    """
    The `LlamaModelParams`.

    Raises:
        CapabilityError: Layers are to go to a GPU that this build cannot use.
    """
    fields = model_fields(
        params,
        gpu=C.llama_supports_gpu_offload(),
        install="the build for yours, such as 'llmcore-cyllama[vulkan]'",
    )
    values = {
        "load_mode": LOAD_MODES[params.mmap, params.mlock],
        "progress_callback": progress,
    }
    return _fill(C.LlamaModelParams(), MODEL_CONSTANTS | fields | values)


def context_params(params: ContextParams, info: ModelInfo) -> Any:
    """The `LlamaContextParams`; ``params`` are checked and have no ``None``."""
    fields = context_fields(params, info)
    return _fill(C.LlamaContextParams(), CONTEXT_CONSTANTS | fields)


def _fill(native: Any, values: Mapping[str, Any]) -> Any:
    for name, value in values.items():
        setattr(native, name, value)  # raises for a name that it does not know
    return native
