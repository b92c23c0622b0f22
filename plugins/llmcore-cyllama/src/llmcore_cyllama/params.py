"""Our parameters as cyllama's; nothing is left to its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmcore.backends.llama_cpp.rules import KV_TYPE_NUMBERS, own_pooling
from llmcore.errors import CapabilityError
from llmcore.values import ContextParams, ModelInfo, ModelParams
from llmcore_cyllama.engine import C

FLASH_ATTENTION = {"auto": -1, False: 0, True: 1}

LOAD_MODES = {
    (True, True): C.LLAMA_LOAD_MODE_MMAP_MLOCK,
    (True, False): C.LLAMA_LOAD_MODE_MMAP,
    (False, True): C.LLAMA_LOAD_MODE_MLOCK,
    (False, False): C.LLAMA_LOAD_MODE_NONE,
}
"""By ``mmap`` and ``mlock``."""

SPLIT_BY_LAYER = 1

# What llmcore does not offer, with the value that it stands for.
MODEL_CONSTANTS = {
    "split_mode": SPLIT_BY_LAYER,
    "lazy_mode": C.LLAMA_LAZY_MODE_AUTO,
    "main_gpu": 0,
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
    "moe_cache_size": 0,
    "ctx_type": C.LLAMA_CONTEXT_TYPE_DEFAULT,
    "rope_scaling_type": -1,  # the model's
    "attention_type": -1,  # the model's
    "rope_freq_base": 0.0,  # 0 and -1: the model's
    "rope_freq_scale": 0.0,
    "yarn_ext_factor": -1.0,
    "yarn_attn_factor": -1.0,
    "yarn_beta_fast": -1.0,
    "yarn_beta_slow": -1.0,
    "yarn_orig_ctx": 0,
    "no_perf": True,
    "op_offload": True,
    "swa_full": False,
    "kv_unified": False,
}


def model_params(params: ModelParams, progress: Any) -> Any:
    """
    The `LlamaModelParams`.

    Raises:
        CapabilityError: Layers are to go to a GPU that this build cannot use.
    """
    gpu = C.llama_supports_gpu_offload()
    layers = params.gpu_layers
    if layers == "auto":
        layers = -1 if gpu else 0  # -1 is all
    elif layers > 0 and not gpu:
        raise CapabilityError(
            f"gpu_layers={layers} but this build of cyllama found no GPU: "
            "use 0 or 'auto', or install the build for yours, such as "
            "'llmcore-cyllama[vulkan]'"
        )
    values = {
        "n_gpu_layers": layers,
        "load_mode": LOAD_MODES[params.mmap, params.mlock],
        "progress_callback": progress,
        "check_tensors": params.check_tensors,
    }
    return _fill(C.LlamaModelParams(), MODEL_CONSTANTS | values)


def context_params(params: ContextParams, info: ModelInfo) -> Any:
    """The `LlamaContextParams`; ``params`` are checked and have no ``None``."""
    batch = params.batch_size
    values = {
        "n_ctx": int(params.context_size) * params.sequences,
        "n_batch": batch,
        # A text that is embedded must be computed at once: attention sees all of it.
        "n_ubatch": batch if params.embeddings else params.micro_batch_size,
        "n_seq_max": params.sequences,
        "n_threads": params.threads,
        "n_threads_batch": params.threads_batch,
        "pooling_type": _pooling(params, info),
        "flash_attn_type": FLASH_ATTENTION[params.flash_attention],
        "type_k": KV_TYPE_NUMBERS[params.kv_type_k],
        "type_v": KV_TYPE_NUMBERS[params.kv_type_v],
        "embeddings": params.embeddings,
        "offload_kqv": params.offload_kv,
    }
    return _fill(C.LlamaContextParams(), CONTEXT_CONSTANTS | values)


def _pooling(params: ContextParams, info: ModelInfo) -> int:
    """The model's way to one vector per text; that of its last token if it has none."""
    if params.embeddings and own_pooling(info) <= 0:
        return int(C.LLAMA_POOLING_TYPE_LAST)
    return int(C.LLAMA_POOLING_TYPE_UNSPECIFIED)


def _fill(native: Any, values: Mapping[str, Any]) -> Any:
    for name, value in values.items():
        setattr(native, name, value)  # raises for a name that it does not know
    return native
