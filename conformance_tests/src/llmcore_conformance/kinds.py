"""
The model under test and, for an engine that reads GGUF, tiny ones whose caches cannot
drop a part of themselves. A pytest plugin of the tests that use ``any_model``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from llmcore import Context, Llama, Model, Sequence
from llmcore.errors import ModelLoadError
from llmcore.values import CacheKind, Capability, ModelInfo
from llmcore_conformance.plugin import current_run
from llmcore_conformance.probes import SIZE, FreshAnswers
from llmcore_conformance.target import Target

KINDS = ("own", "sliding-window", "recurrent")


class Kind(NamedTuple):
    """A target, and what new sequences answer there."""

    target: Target
    as_new: FreshAnswers


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses ``any_model`` with each model that the engine may know."""
    if "kind" in metafunc.fixturenames:
        reads = current_run(metafunc.config).subject.info.formats
        metafunc.parametrize("kind", KINDS if "gguf" in reads else KINDS[:1])


@pytest.fixture(scope="session")
def kinds(
    target: Target, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Kind]:
    """``kinds(name)`` is one of `KINDS`; the own model where the engine has it not."""
    known = {"own": Kind(target, FreshAnswers(target))}

    def make(name: str) -> Kind:
        from llmcore_conformance import models

        folder = tmp_path_factory.mktemp("models")
        write = getattr(models, f"tiny_{name.replace('-', '_')}")
        other = target.on(write(folder / f"{name}.gguf"))
        try:
            other.ask()
        except ModelLoadError:
            return known["own"]
        return Kind(other, FreshAnswers(other))

    def get(name: str) -> Kind:
        if name not in known:
            known[name] = make(name)
        return known[name]

    return get


@pytest.fixture
def any_target(kind: str, kinds: Callable[[str], Kind]) -> Target:
    """The target with a model of one kind."""
    return kinds(kind).target


@pytest.fixture
def any_as_new(kind: str, kinds: Callable[[str], Kind]) -> FreshAnswers:
    """What a new sequence of that model answers."""
    return kinds(kind).as_new


@pytest.fixture
def any_model(any_target: Target, llama: Llama) -> Model:
    """A model of one kind; its seam is recorded in ``ledger``."""
    return any_target.load(llama)


@pytest.fixture
def any_context(any_model: Model) -> Context:
    """A context of it, with two sequences if it can have them."""
    several = Capability.MULTI_SEQUENCE in any_model.capabilities
    return any_model.create_context(
        context_size=SIZE, sequences=2 if several else 1, threads=1
    )


@pytest.fixture
def any_sequence(any_context: Context) -> Sequence:
    """A sequence of that context."""
    return any_context.get_sequence()


@pytest.fixture
def any_prompt(any_model: Model) -> list[int]:
    """A prompt of a hundred tokens: more than a tiny window shows."""
    text = "Once upon a time there was a king who had three sons. "
    tokens = any_model.tokenize(text * 20, add_bos=any_model.info.add_bos)
    return tokens[:100]


def goes_back(info: ModelInfo) -> bool:
    """Whether a cache can go back to the end of the last prompt, as core uses it."""
    if info.cache_kind is CacheKind.FULL:
        return Capability.PARTIAL_REMOVE in info.capabilities
    return (
        info.cache_kind is not CacheKind.NONE
        and Capability.STATE_IO in info.capabilities
    )
