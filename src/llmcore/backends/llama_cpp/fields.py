"""Our parameters as fields of the engine's structures, whatever binding fills them."""

from __future__ import annotations

from typing import Any

from llmcore.backends.llama_cpp.rules import KV_TYPE_NUMBERS, own_pooling
from llmcore.errors import CapabilityError
from llmcore.values import ContextParams, ModelInfo, ModelParams

FLASH_ATTENTION = {"auto": -1, False: 0, True: 1}
POOLING_OF_MODEL, POOLING_LAST = -1, 3
SPLIT_NONE, SPLIT_BY_LAYER = 0, 1

# What llmcore does not offer, with the value that it stands for.
MODEL_CONSTANTS: dict[str, Any] = {
    "vocab_only": False,
    "use_extra_bufts": True,
    "no_host": False,
    "no_alloc": False,
    "load_mtp": False,
}
CONTEXT_CONSTANTS: dict[str, Any] = {
    "n_rs_seq": 0,
    "n_outputs_max": 0,  # as many as n_batch
    "n_outputs_max_per_seq": 1,
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


def model_fields(params: ModelParams, *, gpu: bool, install: str) -> dict[str, Any]:
    """
    Fields of `llama_model_params`.

    Args:
        gpu: Whether this build can place layers on a GPU.

        install: What to install if it cannot.

    Raises:
        CapabilityError: Layers are to go to a GPU and it cannot.
    """
    layers = params.gpu_layers
    if layers == "auto":
        layers = -1 if gpu else 0  # -1 is all
    elif layers > 0 and not gpu:
        raise CapabilityError(
            f"gpu_layers={layers} but this build of llama.cpp has no GPU: "
            f"use 0 or 'auto', or install {install}"
        )
    values = {
        "n_gpu_layers": layers,
        "split_mode": SPLIT_BY_LAYER,
        "main_gpu": 0,
        "check_tensors": params.check_tensors,
    }
    if not layers:
        # This is no GPU at all; else large products go there although no layer does.
        values |= {"split_mode": SPLIT_NONE, "main_gpu": -1}
    return MODEL_CONSTANTS | values


def context_fields(params: ContextParams, info: ModelInfo) -> dict[str, Any]:
    """Fields of `llama_context_params`; ``params`` are checked and have no ``None``."""
    batch = params.batch_size
    values = {
        "n_ctx": params.size * params.sequences,
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
    return CONTEXT_CONSTANTS | values


def _pooling(info: ModelInfo) -> int:
    """The model's way to one vector per text; that of its last token if it has none."""
    return POOLING_OF_MODEL if own_pooling(info) > 0 else POOLING_LAST
