"""Code of a caller on the engine's thread: what it does harms nobody else."""

from __future__ import annotations

import numpy as np
import pytest

from llmcore.errors import DecodeError
from llmcore.params import Shift
from llmcore.prediction import Predictor

from .kit import fresh_answer, sequences, truthful


class Boom(Exception):
    pass


def boom(*args):
    raise Boom("mine")


class Guesser(Predictor):
    def __init__(self, at):
        self.at = at

    def start(self, tokens):
        if self.at == "start":
            boom()

    def accept(self, tokens):
        if self.at == "accept":
            boom()

    def predict(self, limit):
        return boom() if self.at == "predict" else ()


OWN = {
    "processor": {"logits_processors": [boom]},
    "overflow": {"overflow": boom},
    "start": {"predictor": Guesser("start")},
    "accept": {"predictor": Guesser("accept")},
    "predict": {"predictor": Guesser("predict")},
}


class TestCodeOfTheCaller:
    @pytest.mark.parametrize("what", OWN)
    def test_what_it_raises_is_told_to_its_stream_only(self, stage, what):
        """Code of a caller that raises ends his own stream, with his own exception."""
        stage = stage()
        mine, other = sequences(stage, 2, context_size=32)
        prompt = stage.tokens("other")
        stream = other.generate(prompt, max_tokens=16)
        next(stream)
        with pytest.raises(Boom, match="mine") as caught:
            list(mine.generate(stage.tokens("mine"), **OWN[what]))
        assert type(caught.value) is Boom
        assert fresh_answer(stage, prompt, 16) == stream.result.tokens
        assert truthful(mine)
        assert fresh_answer(stage, stage.tokens("mine")) == (
            mine.generate(stage.tokens("mine"), max_tokens=8).result.tokens
        )

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_a_system_exit_does_not_end_the_engine(self, stage, error):
        """SystemExit in a processor reaches its own reader and nobody else."""

        def leave(tokens, logits):
            raise error(3)

        mine, other = sequences(stage(), 2)
        with pytest.raises(error):
            list(mine.generate([65], logits_processors=[leave]))
        assert 3 == len(other.generate([66], max_tokens=3).result.tokens)

    def test_a_processor_that_returns_nonsense(self, stage):
        """A logits processor that returns the wrong shape is named."""
        sequence = stage().sequence()
        with pytest.raises(DecodeError, match="returned the shape"):
            list(sequence.generate([65], logits_processors=[lambda t, x: np.ones(3)]))
        sequence.evaluate([1])

    def test_a_processor_decides(self, stage):
        """A processor sees all tokens so far, and what it changes counts."""
        seen = []

        def only_q(tokens, logits):
            seen.append(list(tokens))
            logits[:] = -100
            logits[ord("q")] = 0

        result = (
            stage()
            .sequence()
            .generate([65, 66], max_tokens=3, logits_processors=[only_q])
            .result
        )
        assert "qqq" == result.text
        assert [[65, 66], [65, 66, 113], [65, 66, 113, 113]] == seen

    def test_a_shift_that_cannot_be(self, stage):
        """A custom overflow with bad numbers fails its stream with a ValueError."""
        sequence = stage().sequence(context_size=16)
        stream = sequence.generate([65], overflow=lambda tokens: Shift(keep=10, drop=9))
        with pytest.raises(ValueError, match="cannot keep 10 and drop 9 of 16 tokens"):
            list(stream)
        assert truthful(sequence)
