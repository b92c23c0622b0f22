"""Our parameters as llama-cpp-python's structures; nothing is left to its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcore.backends.llama_cpp.fields import context_fields, model_fields
from llmcore.backends.llama_cpp.native import C
from llmcore.errors import BackendUnavailableError
from llmcore.values import ContextParams, ModelInfo, ModelParams

LOAD_MODES = {
    (True, True): C.LLAMA_LOAD_MODE_MMAP_MLOCK,
    (True, False): C.LLAMA_LOAD_MODE_MMAP,
    (False, True): C.LLAMA_LOAD_MODE_MLOCK,
    (False, False): C.LLAMA_LOAD_MODE_NONE,
}
"""By ``mmap`` and ``mlock``."""

# What llmcore does not offer, with the value that it stands for.
MODEL_CONSTANTS = {
    "devices": None,
    "tensor_buft_overrides": None,
    "lazy_mode": C.LLAMA_LAZY_MODE_AUTO,
    "tensor_split": None,
    "progress_callback_user_data": None,
    "kv_overrides": None,
}
CONTEXT_CONSTANTS = {
    "ctx_type": C.LLAMA_CONTEXT_TYPE_DEFAULT,
    "defrag_thold": -1.0,
    "cb_eval": C.ggml_backend_sched_eval_callback(),
    "cb_eval_user_data": None,
    "abort_callback": C.ggml_abort_callback(),  # set afterwards
    "abort_callback_data": None,
    "samplers": None,
    "n_samplers": 0,
    "ctx_other": None,
}


def model_params(params: ModelParams, progress: Any) -> Any:
    """
    The `llama_model_params`.

    Raises:
        CapabilityError: Layers are to go to a GPU that this build cannot use.
    """
    fields = model_fields(
        params,
        gpu=C.llama_supports_gpu_offload(),
        install="llama-cpp-python built for yours",
    )
    values = {
        "load_mode": LOAD_MODES[params.mmap, params.mlock],
        "progress_callback": progress,
    }
    return _fill(C.llama_model_default_params(), MODEL_CONSTANTS | fields | values)


def context_params(params: ContextParams, info: ModelInfo) -> Any:
    """The `llama_context_params`; ``params`` are checked and have no ``None``."""
    fields = context_fields(params, info)
    return _fill(C.llama_context_default_params(), CONTEXT_CONSTANTS | fields)


def _fill(structure: Any, values: Mapping[str, Any]) -> Any:
    known = {field[0] for field in structure._fields_}
    for name, value in values.items():
        if name not in known:  # ctypes would take any name and do nothing
            raise BackendUnavailableError(
                f"this version of llama-cpp-python has no parameter {name!r}: "
                "install one that llmcore supports"
            )
        setattr(structure, name, value)
    return structure
