"""
Parameters from an object, from single fields, or from both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import evolve
from attrs import fields as attrs_fields

from llmcore.params.generation import GenerationParams
from llmcore.params.sampling import SamplingParams

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


def merge_options(
    sampling: SamplingParams | None, options: Mapping[str, Any]
) -> tuple[SamplingParams, GenerationParams]:
    """
    Sort single fields into how tokens are chosen and how the answer ends.

    Args:
        sampling: The fields of `SamplingParams` among ``options`` win over these.

        options: Fields of `SamplingParams` and `GenerationParams`.

    Raises:
        TypeError: A field is unknown; names it and the ones there are.

        ValueError: A field is out of range.
    """
    own = {attribute.name for attribute in attrs_fields(SamplingParams)}
    fields = {name: value for name, value in options.items() if name in own}
    rest = {name: value for name, value in options.items() if name not in own}
    known = [attribute.name for attribute in attrs_fields(GenerationParams)]
    for name in rest:
        if name not in known:
            raise TypeError(
                f"there is no option {name!r}: there are {', '.join(known)}, and the "
                f"fields of SamplingParams ({', '.join(sorted(own))})"
            )
    return merge(SamplingParams, sampling, fields), GenerationParams(**rest)
