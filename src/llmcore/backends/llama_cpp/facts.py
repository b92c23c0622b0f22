"""What the engine says about a loaded model, as a `ModelInfo`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from llmcore.backends.llama_cpp.native import C
from llmcore.backends.llama_cpp.rules import WITHOUT_CACHE, capabilities
from llmcore.values import CacheKind, ModelInfo, evolve


def model_info(model: int, vocab: int) -> ModelInfo:
    """Ask the engine for everything, once."""
    metadata = dict(_metadata(model))
    architecture = metadata.get("general.architecture", "")
    info = ModelInfo(
        architecture=architecture,
        vocab_size=C.llama_vocab_n_tokens(vocab),
        name=metadata.get("general.name", ""),
        description=_text(C.llama_model_desc, model),
        trained_context=C.llama_model_n_ctx_train(model),
        embedding_size=C.llama_model_n_embd_out(model),
        layers=C.llama_model_n_layer(model),
        heads=C.llama_model_n_head(model),
        kv_heads=C.llama_model_n_head_kv(model),
        parameters=C.llama_model_n_params(model),
        size_bytes=C.llama_model_size(model),
        cache_kind=_cache_kind(model, architecture),
        metadata=metadata,
        chat_template=_template(model),
        **_vocabulary(vocab),
    )
    rotation, gpu = C.llama_model_rope_type(model), C.llama_supports_gpu_offload()
    return evolve(info, capabilities=capabilities(info, rotation, gpu))


def _text(getter: Callable[..., int], *arguments: Any) -> str:
    """Call a getter that writes into a buffer and says how much it needs."""
    size = 256
    while True:
        buffer = ctypes.create_string_buffer(size)
        needed = getter(*arguments, buffer, size)
        if needed < size:
            return buffer.value.decode("utf-8", "replace")
        size = needed + 1


def _metadata(model: int) -> Iterator[tuple[str, str]]:
    for index in range(C.llama_model_meta_count(model)):
        yield (
            _text(C.llama_model_meta_key_by_index, model, index),
            _text(C.llama_model_meta_val_str_by_index, model, index),
        )


def _template(model: int) -> str | None:
    template = C.llama_model_chat_template(model, None)
    return None if template is None else template.decode("utf-8", "replace")


def _vocabulary(vocab: int) -> dict[str, Any]:
    tokens = range(C.llama_vocab_n_tokens(vocab))
    bos, eos = C.llama_vocab_bos(vocab), C.llama_vocab_eos(vocab)
    return {
        "bos_token": bos if bos in tokens else None,
        "eos_token": eos if eos in tokens else None,
        "add_bos": C.llama_vocab_get_add_bos(vocab),
        "end_tokens": frozenset(t for t in tokens if C.llama_vocab_is_eog(vocab, t)),
        "special_tokens": {
            C.llama_vocab_get_text(vocab, token).decode("utf-8", "replace"): token
            for token in tokens
            if C.llama_vocab_is_control(vocab, token)
        },
    }


def _cache_kind(model: int, architecture: str) -> CacheKind:
    if architecture in WITHOUT_CACHE:
        return CacheKind.NONE
    if C.llama_model_is_hybrid(model):
        return CacheKind.HYBRID
    if C.llama_model_is_recurrent(model):
        return CacheKind.RECURRENT
    if C.llama_model_n_swa(model) > 0:
        return CacheKind.SLIDING_WINDOW
    return CacheKind.FULL
