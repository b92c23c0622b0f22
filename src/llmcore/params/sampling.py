"""
How the next token is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

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


def _texts(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _no_empty_text(
    instance: object, attribute: Attribute[tuple[str, ...]], value: tuple[object, ...]
) -> None:
    for text in value:
        if not isinstance(text, str) or not text:
            raise ValueError(
                f"{attribute.name} must be texts that are not empty, got {text!r}"
            )


@frozen(kw_only=True)
class SamplingParams:
    """
    How the next token is chosen. Means the same on every backend.

    The steps, in this order:

    1. ``logit_bias`` is added to the logits.
    2. Tokens among the last ``penalty_last_n`` are penalised: a logit ``x`` becomes
       ``x / repeat_penalty`` if it is positive, else ``x * repeat_penalty``; then
       ``count * frequency_penalty + presence_penalty`` is subtracted.
    3. DRY: if the last ``n`` tokens occurred before among the last
       ``dry_penalty_last_n``, and ``n`` is at least ``dry_allowed_length``, then
       ``dry_multiplier * dry_base ** (n - dry_allowed_length)`` is subtracted from the
       token that followed them there; the longest ``n`` counts.
    4. With ``temperature`` 0 the token with the largest logit is taken (the lowest
       number of equal ones), and nothing below matters.
    5. The ``top_k`` largest logits are kept.
    6. Of them those whose surprise ``-log p`` is closest to its mean, until they have
       ``typical_p`` of the probability.
    7. Of them the most likely, until they have ``top_p`` of the probability.
    8. Of them those with at least ``min_p`` of the best one's probability.
    9. XTC: with ``xtc_probability``, all those with a probability of at least
       ``xtc_threshold`` are excluded, except the least likely of them.
    10. The logits are divided by ``temperature`` and a token is drawn.

    Mirostat, if it is on, replaces 5 to 9: among the tokens whose surprise
    ``-log2 p``, after ``temperature``, is at most ``mu``, one is drawn, and
    ``mirostat_eta`` times what its surprise among those is above ``mirostat_tau`` is
    subtracted from ``mu``, which starts at twice ``mirostat_tau``.

    Each step sees the probabilities of what the step before kept, and always leaves at
    least one token; of equals the lowest numbers are kept. The default is greedy.

    Args:
        temperature: 0 is greedy; 1 leaves the distribution as it is.

        top_k: Keep this many; 0 keeps all.

        typical_p: Keep the smallest typical set with this much probability (Meister et
            al., "Locally Typical Sampling"); 1 keeps all.

        top_p: Keep the smallest set with this much probability (Holtzman et al.,
            "The Curious Case of Neural Text Degeneration"); 1 keeps all.

        min_p: Keep what has at least this share of the best token's probability
            (Nguyen et al., "Turning Up the Heat"); 0 keeps all.

        xtc_probability: How often the top choices are excluded (text-generation-webui,
            pull request 6335); 0 is never.

        xtc_threshold: From which probability on a token is a top choice; above 0.5
            there are never two, and nothing is excluded.

        mirostat_tau: Bits of surprise to aim at (Basu et al., "Mirostat", version 2);
            0 switches it off.

        mirostat_eta: How fast it adapts.

        repeat_penalty: For tokens among the last ``penalty_last_n`` (Keskar et al.,
            "CTRL"); 1 does nothing.

        frequency_penalty: Subtract this for each occurrence among them.

        presence_penalty: Subtract this once for each that occurs among them.

        penalty_last_n: How many tokens back the penalties look; 0 disables them.

        dry_multiplier: Penalty of a repetition of just ``dry_allowed_length``
            (text-generation-webui, pull request 5677); 0 disables DRY.

        dry_base: Each further token multiplies the penalty by this.

        dry_allowed_length: Shorter repetitions are free.

        dry_penalty_last_n: How many tokens back DRY looks; 0 disables it.

        dry_breakers: A token whose text contains one of these is never part of a
            repetition, and is not penalised by DRY.

        logit_bias: Added to the logits of these token numbers; ``-inf`` forbids one.

        seed: Of this sequence's random numbers, 0 to 2**32-1; ``None`` draws one.
    """

    temperature: float = field(default=0.0, validator=number(0, 100))
    top_k: int = field(default=40, validator=integer(0))
    typical_p: float = field(default=1.0, validator=number(0, 1, above=True))
    top_p: float = field(default=0.95, validator=number(0, 1, above=True))
    min_p: float = field(default=0.0, validator=number(0, 1))
    xtc_probability: float = field(default=0.0, validator=number(0, 1))
    xtc_threshold: float = field(default=0.1, validator=number(0, 1, above=True))
    mirostat_tau: float = field(default=0.0, validator=number(0, 100))
    mirostat_eta: float = field(default=0.1, validator=number(0, 1))
    repeat_penalty: float = field(default=1.0, validator=number(0, 100, above=True))
    frequency_penalty: float = field(default=0.0, validator=number(-100, 100))
    presence_penalty: float = field(default=0.0, validator=number(-100, 100))
    penalty_last_n: int = field(default=64, validator=integer(0))
    dry_multiplier: float = field(default=0.0, validator=number(0, 100))
    dry_base: float = field(default=1.75, validator=number(1, 100))
    dry_allowed_length: int = field(default=2, validator=integer(1))
    dry_penalty_last_n: int = field(default=1024, validator=integer(0))
    dry_breakers: tuple[str, ...] = field(
        default=("\n", ":", '"', "*"), converter=_texts, validator=_no_empty_text
    )
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

    @property
    def has_dry(self) -> bool:
        """Whether DRY changes anything."""
        return self.dry_multiplier > 0 and self.dry_penalty_last_n > 0

    @property
    def lookback(self) -> int:
        """How many of the last tokens matter for the choice of the next one."""
        return max(
            self.penalty_last_n if self.has_penalties else 0,
            self.dry_penalty_last_n if self.has_dry else 0,
        )

    @property
    def is_basic(self) -> bool:
        """
        Whether DRY, typical, XTC and Mirostat change nothing.

        What is left are the bias, the penalties, ``top_k``, ``top_p``, ``min_p`` and
        ``temperature``, which most engines know.
        """
        return not self.has_dry and (
            self.temperature == 0
            or (
                self.typical_p == 1
                and self.xtc_probability == 0
                and self.mirostat_tau == 0
            )
        )
