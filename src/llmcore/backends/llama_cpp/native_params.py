"""Our parameters as the engine's structures; nothing is left to its defaults."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from llmcore.backends.llama_cpp.native import C
from llmcore.backends.llama_cpp.rules import KV_TYPE_NUMBERS, own_pooling
from llmcore.errors import BackendUnavailableError, CapabilityError
from llmcore.values import ContextParams, ModelInfo, ModelParams

FLASH_ATTENTION = {"auto": -1, False: 0, True: 1}
POOLING_OF_MODEL, POOLING_LAST = -1, 3


NO_DEVICES = (ctypes.c_void_p * 1)(None)
"""An empty list, which ends with a null pointer."""

# What llmcore does not offer, with the value that it stands for.
MODEL_CONSTANTS = {
    "tensor_buft_overrides": None,
    "split_mode": C.LLAMA_SPLIT_MODE_LAYER,
    "lazy_mode": C.LLAMA_LAZY_MODE_AUTO,
    "main_gpu": 0,
    "tensor_split": None,
    "progress_callback_user_data": None,
    "kv_overrides": None,
    "vocab_only": False,
    "use_extra_bufts": True,
    "no_host": False,
    "no_alloc": False,
    "load_mtp": False,
}
CONTEXT_CONSTANTS = {
    "n_rs_seq": 0,
    "n_outputs_max": 0,  # as many as n_batch
    "n_outputs_max_per_seq": 1,
    "ctx_type": C.LLAMA_CONTEXT_TYPE_DEFAULT,
    "rope_scaling_type": C.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,  # the model's
    "attention_type": C.LLAMA_ATTENTION_TYPE_UNSPECIFIED,  # the model's
    "rope_freq_base": 0.0,  # 0 and -1: the model's
    "rope_freq_scale": 0.0,
    "yarn_ext_factor": -1.0,
    "yarn_attn_factor": -1.0,
    "yarn_beta_fast": -1.0,
    "yarn_beta_slow": -1.0,
    "yarn_orig_ctx": 0,
    "defrag_thold": -1.0,
    "cb_eval": C.ggml_backend_sched_eval_callback(),
    "cb_eval_user_data": None,
    "abort_callback": C.ggml_abort_callback(),  # set afterwards
    "abort_callback_data": None,
    "no_perf": True,
    "op_offload": True,
    "swa_full": False,
    "kv_unified": False,
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
    gpu = C.llama_supports_gpu_offload()
    layers = params.gpu_layers
    if layers == "auto":
        layers = -1 if gpu else 0  # -1 is all
    elif layers > 0 and not gpu:
        raise CapabilityError(
            f"gpu_layers={layers} but this build of llama.cpp has no GPU support: "
            "use 0 or 'auto', or install llama-cpp-python built for your GPU"
        )
    values = {
        "n_gpu_layers": layers,
        # Without this list, large products would go to a GPU although no layer does.
        "devices": None if layers else ctypes.addressof(NO_DEVICES),
        "load_mode": _load_mode(params),
        "progress_callback": progress,
        "check_tensors": params.check_tensors,
    }
    return _fill(C.llama_model_default_params(), MODEL_CONSTANTS | values)


def _load_mode(params: ModelParams) -> int:
    modes = {
        (True, True): C.LLAMA_LOAD_MODE_MMAP_MLOCK,
        (True, False): C.LLAMA_LOAD_MODE_MMAP,
        (False, True): C.LLAMA_LOAD_MODE_MLOCK,
        (False, False): C.LLAMA_LOAD_MODE_NONE,
    }
    return int(modes[params.mmap, params.mlock])


def context_params(params: ContextParams, info: ModelInfo) -> Any:
    """The `llama_context_params`; ``params`` are checked and have no ``None``."""
    batch = params.batch_size
    values = {
        "n_ctx": int(params.context_size) * params.sequences,
        "n_batch": batch,
        # A text that is embedded must be computed at once: attention sees all of it.
        "n_ubatch": batch if params.embeddings else params.micro_batch_size,
        "n_seq_max": params.sequences,
        "n_threads": params.threads,
        "n_threads_batch": params.threads_batch,
        "pooling_type": _pooling(info) if params.embeddings else POOLING_OF_MODEL,
        "flash_attn_type": FLASH_ATTENTION[params.flash_attention],
        "type_k": KV_TYPE_NUMBERS[params.kv_type_k],
        "type_v": KV_TYPE_NUMBERS[params.kv_type_v],
        "embeddings": params.embeddings,
        "offload_kqv": params.offload_kv,
    }
    return _fill(C.llama_context_default_params(), CONTEXT_CONSTANTS | values)


def _pooling(info: ModelInfo) -> int:
    """The model's way to one vector per text; that of its last token if it has none."""
    return POOLING_OF_MODEL if own_pooling(info) > 0 else POOLING_LAST


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
