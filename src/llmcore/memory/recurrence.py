"""Which layers keep a state instead of keys and values, and how large it is."""

from __future__ import annotations

from llmcore.memory.header_values import HeaderValues

__all__ = ["has_attention", "recurrent_layers", "scan_parameters", "state_sizes"]

_ONLY_RECURRENT = {"arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"}
_BOTH_AT_ONCE = {"falcon-h1"}
_BY_HEADS = {
    "bailingmoe3",
    "granitehybrid",
    "jamba",
    "kimi-linear",
    "lfm2",
    "lfm2moe",
    "nemotron_h",
    "nemotron_h_moe",
    "plamo2",
}
"""A layer without key and value heads is recurrent."""
_BY_INTERVAL = {"minimax-01": 8, "qwen35": 4, "qwen35moe": 4, "qwen3next": 4}
"""Every so many layers one has attention; the others are recurrent."""
_WITH_PLAIN_LAYERS = {"nemotron_h", "nemotron_h_moe"}
"""Some layers are a feed-forward network and nothing else."""


def recurrent_layers(
    values: HeaderValues, kv_heads: tuple[int, ...], feed_forward: tuple[int, ...]
) -> tuple[bool, ...]:
    """Whether each layer keeps a state (``is_recr`` in ``src/llama-hparams.cpp``)."""
    architecture, count = values.header.architecture, len(kv_heads)
    if architecture in _ONLY_RECURRENT | _BOTH_AT_ONCE:
        return (True,) * count
    if architecture in _WITH_PLAIN_LAYERS:
        pairs = zip(kv_heads, feed_forward, strict=True)
        return tuple(heads == 0 and width == 0 for heads, width in pairs)
    if architecture in _BY_HEADS:
        return tuple(heads == 0 for heads in kv_heads)
    if architecture in _BY_INTERVAL:
        key = "attention.recurrent_layers"
        if values.get(key) is not None:
            return tuple(map(bool, values.per_layer(key, count)))
        interval = values.integer("full_attention_interval", _BY_INTERVAL[architecture])
        return tuple((layer + 1) % max(interval, 1) != 0 for layer in range(count))
    return (False,) * count


def has_attention(architecture: str, recurrent: bool, feed_forward: int) -> bool:
    """Whether a layer caches keys and values."""
    if architecture in _BOTH_AT_ONCE:
        return True
    if architecture in _WITH_PLAIN_LAYERS:
        return not recurrent and feed_forward == 0
    return not recurrent


def state_sizes(values: HeaderValues, heads: int, head: int) -> tuple[int, int]:
    """
    Values, of 32 bits each, that one recurrent layer keeps for one sequence.

    Args:
        heads: Of the model.

        head: Values of one.

    Returns:
        Those of the last inputs of its convolution, and those of the state proper:
        ``n_embd_r`` and ``n_embd_s`` in ``src/llama-hparams.cpp``.
    """
    kernel = values.integer("ssm.conv_kernel")
    embedding = values.integer("embedding_length")
    if wkv := values.integer("wkv.head_size"):  # RWKV
        return values.integer("token_shift_count", 2) * embedding, wkv * embedding
    if short := values.integer("shortconv.l_cache"):  # LFM2
        return (short - 1) * embedding, 0
    if kda := values.integer("kda.head_dim"):  # Kimi Delta Attention
        return 3 * (kernel - 1 if kernel else 3) * heads * kda, heads * kda * kda
    if values.header.architecture == "minimax-01":  # lightning attention
        return 0, heads * head * head
    inner, state = values.integer("ssm.inner_size"), values.integer("ssm.state_size")
    groups = values.integer("ssm.group_count")
    return max(kernel - 1, 0) * (inner + 2 * groups * state), state * inner


def scan_parameters(values: HeaderValues) -> int:
    """Values for each token that steer a scan: its time steps, what goes in and out."""
    groups = max(values.integer("ssm.group_count"), 1)
    state = values.integer("ssm.state_size") * groups
    return values.integer("ssm.time_step_rank") + 2 * state
