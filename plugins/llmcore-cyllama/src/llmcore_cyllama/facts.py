"""What the engine says about a loaded model, as a `ModelInfo`."""

from __future__ import annotations

from typing import Any

from llmcore.backends.llama_cpp.rules import WITHOUT_CACHE, capabilities
from llmcore.values import CacheKind, ModelInfo, evolve
from llmcore_cyllama.engine import C


def model_info(model: Any, vocab: Any) -> ModelInfo:
    """Ask the engine for everything, once."""
    metadata = {
        model.meta_key_by_index(index): model.meta_val_str_by_index(index)
        for index in range(model.meta_count())
    }
    architecture = metadata.get("general.architecture", "")
    info = ModelInfo(
        architecture=architecture,
        vocab_size=vocab.n_vocab,
        name=metadata.get("general.name", ""),
        description=model.desc,
        trained_context=model.n_ctx_train,
        embedding_size=model.n_embd_out,
        layers=model.n_layer,
        heads=model.n_head,
        kv_heads=model.n_head_kv,
        parameters=model.n_params,
        size_bytes=model.size,
        cache_kind=_cache_kind(model, architecture),
        metadata=metadata,
        chat_template=model.get_default_chat_template() or None,
        **_vocabulary(vocab),
    )
    gpu = C.llama_supports_gpu_offload()
    return evolve(info, capabilities=capabilities(info, model.rope_type, gpu))


def _vocabulary(vocab: Any) -> dict[str, Any]:
    tokens = range(vocab.n_vocab)
    bos, eos = vocab.token_bos(), vocab.token_eos()
    return {
        "bos_token": bos if bos in tokens else None,
        "eos_token": eos if eos in tokens else None,
        "add_bos": vocab.get_add_bos(),
        "end_tokens": frozenset(token for token in tokens if vocab.is_eog(token)),
        "special_tokens": {
            vocab.get_text(token): token for token in tokens if vocab.is_control(token)
        },
    }


def _cache_kind(model: Any, architecture: str) -> CacheKind:
    if architecture in WITHOUT_CACHE:
        return CacheKind.NONE
    if model.is_hybrid():
        return CacheKind.HYBRID
    if model.is_recurrent():
        return CacheKind.RECURRENT
    if model.n_swa > 0:
        return CacheKind.SLIDING_WINDOW
    return CacheKind.FULL
