"""
Parameters: how to load a model, create a context, choose a token.

A bad value raises `ValueError` (or `TypeError`) naming the field before any native
code runs. No default here is inherited from an engine: what stands here is what every
backend is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from attrs import Attribute, evolve, field, frozen
from attrs import fields as attrs_fields

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Element types of the key and value cache."""

INT32_MAX = 2**31 - 1


# -- validators ----------------------------------------------------------------------


def _integer(low: int, high: int = INT32_MAX, *also: object) -> Any:
    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value in also and type(value) in {type(a) for a in also}:
            return
        if not isinstance(value, int) or isinstance(value, bool):
            extra = "".join(f" or {a!r}" for a in also)
            raise TypeError(
                f"{attribute.name} must be an integer{extra}, got {value!r}"
            )
        if not low <= value <= high:
            raise ValueError(
                f"{attribute.name} must be between {low} and {high}, got {value}"
            )

    return check


def _number(low: float, high: float = math.inf, *, above: bool = False) -> Any:
    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{attribute.name} must be a number, got {value!r}")
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(
                f"{attribute.name} must be finite and between {low:g} and {high:g}, "
                f"got {value}"
            )
        if above and value == low:
            raise ValueError(f"{attribute.name} must be above {low:g}, got {value}")

    return check


def one_of(*allowed: object) -> Any:
    """Validator: the value is one of these, and of the same type."""

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if not any(
            value is a or (type(value) is type(a) and value == a) for a in allowed
        ):
            choices = ", ".join(repr(a) for a in allowed)
            raise ValueError(
                f"{attribute.name} must be one of {choices}, got {value!r}"
            )

    return check


_flag = one_of(True, False)


# -- parameters ----------------------------------------------------------------------


@frozen(kw_only=True)
class ModelParams:
    """
    How to load a model.

    Args:
        gpu_layers: Layers to place on a GPU; ``"auto"`` means all of them if the
            build has a GPU and none otherwise. An explicit number on a build without
            a GPU raises `CapabilityError`.

        mmap: Map the file instead of reading it into allocated memory.

        mlock: Pin the weights in RAM.

        check_tensors: Validate the tensor data while loading (slow).
    """

    gpu_layers: int | Literal["auto"] = field(
        default="auto", validator=_integer(0, 100_000, "auto")
    )
    mmap: bool = field(default=True, validator=_flag)
    mlock: bool = field(default=False, validator=_flag)
    check_tensors: bool = field(default=False, validator=_flag)


@frozen(kw_only=True)
class ContextParams:
    """
    How to create a context. Sizes are in tokens.

    Args:
        context_size: Tokens that each sequence can hold; ``"auto"`` means the length
            that the model was trained for, at most 4096. An engine may round up;
            `Context.params` says what was given.

        sequences: How many sequences the context can hold.

        batch_size: Most tokens that are handed to the engine in one call.

        micro_batch_size: Most tokens that the engine computes at once; not above
            ``batch_size``.

        threads: CPU threads for single tokens; ``None`` means the physical share that
            llmcore chooses (the number of usable cores).

        threads_batch: CPU threads for prompts; ``None`` means ``threads``.

        kv_type_k: Element type of the key cache, one of `KV_TYPES`.

        kv_type_v: Element type of the value cache; a quantised one needs flash
            attention.

        flash_attention: ``"auto"`` lets the engine choose.

        embeddings: Create the context for embeddings instead of generation.

        offload_kv: Keep the cache of offloaded layers on the GPU.
    """

    context_size: int | Literal["auto"] = field(
        default="auto", validator=_integer(8, INT32_MAX, "auto")
    )
    sequences: int = field(default=1, validator=_integer(1, 256))
    batch_size: int = field(default=512, validator=_integer(1, 1_048_576))
    micro_batch_size: int = field(default=512, validator=_integer(1, 1_048_576))
    threads: int | None = field(default=None, validator=_integer(1, 1024, None))
    threads_batch: int | None = field(default=None, validator=_integer(1, 1024, None))
    kv_type_k: str = field(default="f16", validator=one_of(*KV_TYPES))
    kv_type_v: str = field(default="f16", validator=one_of(*KV_TYPES))
    flash_attention: bool | Literal["auto"] = field(
        default="auto", validator=one_of("auto", True, False)
    )
    embeddings: bool = field(default=False, validator=_flag)
    offload_kv: bool = field(default=True, validator=_flag)

    def __attrs_post_init__(self) -> None:
        if self.batch_size < self.sequences:
            raise ValueError(
                f"batch_size must be at least sequences ({self.sequences}), "
                f"got {self.batch_size}"
            )
        quantised = self.kv_type_v.startswith(("q", "iq"))
        if quantised and self.flash_attention is False:
            raise ValueError(
                f"kv_type_v={self.kv_type_v!r} needs flash attention: "
                "leave flash_attention at 'auto' or set it to True"
            )


def _bias(
    instance: object, attribute: Attribute[Any], value: Mapping[int, float]
) -> None:
    for token, bias in value.items():
        if not isinstance(token, int) or not 0 <= token <= INT32_MAX:
            raise ValueError(f"logit_bias keys must be token numbers, got {token!r}")
        if not isinstance(bias, int | float) or math.isnan(bias):
            raise ValueError(f"logit_bias[{token}] must be a number, got {bias!r}")


@frozen(kw_only=True)
class SamplingParams:
    """
    How the next token is chosen. Means the same on every backend.

    The steps, in this order: ``logit_bias`` is added; repeated tokens are penalised;
    with ``temperature`` 0 the most likely token is taken (the lowest number of equal
    ones); otherwise the ``top_k`` most likely are kept, of them the smallest set that
    reaches ``top_p``, of them those with at least ``min_p`` of the best probability;
    the logits are divided by ``temperature`` and one token is drawn. The default is
    greedy.

    Args:
        temperature: 0 is greedy; 1 leaves the distribution as it is.

        top_k: Keep this many; 0 keeps all.

        top_p: Keep the smallest set with this much probability (Holtzman et al.,
            "The Curious Case of Neural Text Degeneration"); 1 keeps all.

        min_p: Keep what has at least this share of the best token's probability
            (Nguyen et al., "Turning Up the Heat"); 0 keeps all.

        repeat_penalty: Divide positive and multiply negative logits of tokens among
            the last ``penalty_last_n`` (Keskar et al., "CTRL"); 1 does nothing.

        frequency_penalty: Subtract this for each occurrence among them.

        presence_penalty: Subtract this once for each that occurs among them.

        penalty_last_n: How many tokens back the penalties look; 0 disables them.

        logit_bias: Added to the logits of these token numbers; ``-inf`` forbids one.

        seed: Of this sequence's random numbers, 0 to 2**32-1; ``None`` draws one.
    """

    temperature: float = field(default=0.0, validator=_number(0, 100))
    top_k: int = field(default=40, validator=_integer(0))
    top_p: float = field(default=0.95, validator=_number(0, 1, above=True))
    min_p: float = field(default=0.0, validator=_number(0, 1))
    repeat_penalty: float = field(default=1.0, validator=_number(0, 100, above=True))
    frequency_penalty: float = field(default=0.0, validator=_number(-100, 100))
    presence_penalty: float = field(default=0.0, validator=_number(-100, 100))
    penalty_last_n: int = field(default=64, validator=_integer(0))
    logit_bias: Mapping[int, float] = field(factory=dict, validator=_bias)
    seed: int | None = field(default=None, validator=_integer(0, 2**32 - 1, None))

    @property
    def has_penalties(self) -> bool:
        """Whether any of the three penalties changes anything."""
        return self.penalty_last_n > 0 and (
            self.repeat_penalty != 1.0
            or self.frequency_penalty != 0.0
            or self.presence_penalty != 0.0
        )


P = TypeVar("P")


def merge(kind: type[P], params: P | None, fields: Mapping[str, Any]) -> P:
    """
    Parameters from an object, from single fields, or from both (the fields win).

    Raises:
        TypeError: A field is unknown; names it and the ones there are.

        ValueError: A field is out of range.
    """
    known = [attribute.name for attribute in attrs_fields(kind)]  # type: ignore[arg-type]
    for name in fields:
        if name not in known:
            raise TypeError(
                f"{kind.__name__} has no field {name!r}: it has {', '.join(known)}"
            )
    if params is None:
        return kind(**fields)
    return evolve(params, **fields)  # type: ignore[misc]
