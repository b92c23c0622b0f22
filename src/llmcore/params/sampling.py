"""
How the next token is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from attrs import Attribute, field, frozen

from llmcore.params.validators import INT32_MAX, integer, number


def _bias(
    instance: object,
    attribute: Attribute[Mapping[int, float]],
    value: Mapping[int, float],
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

    temperature: float = field(default=0.0, validator=number(0, 100))
    top_k: int = field(default=40, validator=integer(0))
    top_p: float = field(default=0.95, validator=number(0, 1, above=True))
    min_p: float = field(default=0.0, validator=number(0, 1))
    repeat_penalty: float = field(default=1.0, validator=number(0, 100, above=True))
    frequency_penalty: float = field(default=0.0, validator=number(-100, 100))
    presence_penalty: float = field(default=0.0, validator=number(-100, 100))
    penalty_last_n: int = field(default=64, validator=integer(0))
    logit_bias: Mapping[int, float] = field(factory=dict, validator=_bias)
    seed: int | None = field(default=None, validator=integer(0, 2**32 - 1, None))

    @property
    def has_penalties(self) -> bool:
        """Whether any of the three penalties changes anything."""
        return self.penalty_last_n > 0 and (
            self.repeat_penalty != 1.0
            or self.frequency_penalty != 0.0
            or self.presence_penalty != 0.0
        )
