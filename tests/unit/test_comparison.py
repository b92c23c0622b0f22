"""Comparing two engines: the first difference, and what it means."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import llmcore
from llmcore.cli import app
from llmcore.comparison import TOLERANCE, Verdict, compare
from llmcore.testing import NullScript, null_backend
from llmcore.values import Capability

PROMPTS = ["once", "upon a time"]


@pytest.fixture
def model():
    """``model(...)``: a loaded model on an instance of its own."""
    with llmcore.Scope() as scope:

        def load(script=None):
            llama = scope.own(llmcore.get_llama(null_backend(script)))
            return scope.own(llama.load_model())

        yield load


def says(answer, **more):
    """What an engine that gives one answer is scripted by."""
    return NullScript(answer=answer, **more)


def test_equal_engines_are_the_same(model):
    """Two instances of one engine agree in every token."""
    found = list(compare(model(), model(), PROMPTS, max_tokens=8))
    assert [Verdict.SAME] * 2 == [one.verdict for one in found]
    assert all(one.first is None and one.same_tokens for one in found)
    assert all(8 == len(one.answers[0]) for one in found)


def test_a_wide_difference_is_a_defect(model):
    """Tokens that each side clearly prefers are a fault; both margins are told."""
    a, b = model(says("one thing")), model(says("on foot"))
    (found,) = compare(a, b, PROMPTS[:1], max_tokens=4)
    assert Verdict.DEFECT is found.verdict
    assert (2, b"e", b" ") == (
        found.first.index,
        found.first.a.piece,
        found.first.b.piece,
    )
    assert min(found.first.a.margin, found.first.b.margin) > TOLERANCE


def test_a_small_difference_is_a_near_tie(model):
    """The same difference is a near tie if it is within the tolerance."""
    a, b = model(says("one thing")), model(says("on foot"))
    (found,) = compare(a, b, PROMPTS[:1], max_tokens=4, tolerance=1000.0)
    assert Verdict.NEAR_TIE is found.verdict


def test_without_logits_nobody_can_tell(model):
    """Two texts of engines that show no logits differ for an unknown reason."""
    silent = frozenset({Capability.NATIVE_SAMPLING})
    a = model(says("one thing", capabilities=silent))
    b = model(says("another", capabilities=silent))
    (found,) = compare(a, b, PROMPTS[:1], max_tokens=4)
    assert Verdict.UNKNOWN is found.verdict
    assert (None, None) == (found.first.a.margin, found.first.b.margin)


def test_other_tokens_are_a_defect(model):
    """Sides that cut a text differently are told apart before any answer is judged."""
    a, b = model(), model()
    b.tokenize = lambda text, **more: [*a.tokenize(text, **more), 1]
    (found,) = compare(a, b, PROMPTS[:1], max_tokens=1)
    assert (False, Verdict.DEFECT) == (found.same_tokens, found.verdict)


def test_an_empty_prompt_is_refused(model):
    """There must be something to continue."""
    with pytest.raises(ValueError, match="empty prompt"):
        list(compare(model(), model(), [""]))


class TestCommand:
    def test_it_prints_a_line_for_each_prompt(self):
        """``compare`` judges each prompt, and its exit code is 0 without a defect."""
        args = ["compare", "null", "null", "model", "--max-tokens", "4"]
        done = CliRunner().invoke(app, [*args, "--prompt", "a", "--prompt", "b"])
        assert 0 == done.exit_code
        assert ["same: 'a', 4 equal tokens", "same: 'b', 4 equal tokens"] == (
            done.output.splitlines()
        )

    def test_it_prints_json(self):
        """``--json`` prints one object for each prompt."""
        args = ["compare", "null", "null", "model", "--json", "--prompt", "a"]
        done = CliRunner().invoke(app, [*args, "--max-tokens", "4"])
        told = json.loads(done.output)
        assert ("same", None, True) == (
            *(told["verdict"], told["first"]),
            told["same_tokens"],
        )
