"""Saved state: state.md."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmcore import ChatSession, Model, Sequence
from llmcore.errors import BackendError, StateError, StateMismatchError
from llmcore.state_file import SavedState, read, write
from llmcore.values import Capability, evolve
from llmcore_conformance import clause
from llmcore_conformance.ledger import SeamLedger
from llmcore_conformance.probes import (
    CHAT_TEMPLATE,
    SIZE,
    FreshAnswers,
    answer,
    endless,
    narrowed,
)
from llmcore_conformance.target import Target

pytest_plugins = ["llmcore_conformance.kinds"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where to save."""
    return tmp_path / "saved.state"


def another(sequence: Sequence) -> Sequence:
    """A sequence in another context like its own."""
    model, params = sequence.context.model, sequence.context.params
    return model.create_context(params).get_sequence()


def edit(path: Path, **fields: Any) -> None:
    """Make a file say that it comes from somewhere else."""
    saved = read(path)
    write(path, evolve(saved, header=evolve(saved.header, **fields)))


def foreign(sequence: Sequence) -> dict[str, Any]:
    """What a file of another model says of it."""
    info = sequence.context.model.info
    return {"model": "0" * 32} if info.fingerprint else {"vocab_size": 1 << 20}


@clause("state.load-equal")
def test_a_loaded_sequence_goes_on_as_the_saved_one(
    any_sequence: Sequence, any_prompt: list[int], path: Path
) -> None:
    """It has the tokens, gives the answer, and evaluates only what is new."""
    answer(any_sequence, any_prompt[:80], 4)
    any_sequence.save(path)
    held = any_sequence.tokens
    prompt = [*held, *any_prompt[80:]]
    loaded = another(any_sequence)
    loaded.evaluate(any_prompt[::-1])
    loaded.load(path)
    assert loaded.tokens == held
    params = endless(loaded.context.model)
    result = loaded.generate(prompt, params, max_tokens=8).result
    assert result.tokens == answer(any_sequence, prompt)
    assert result.cache.evaluated == len(prompt) - len(held)


@clause("state.mismatch")
@pytest.mark.parametrize(
    "field", ["model", "backend", "build", "cache_kind", "kv_type_k", "kv_type_v"]
)
def test_a_state_of_something_else_is_refused(
    sequence: Sequence,
    prompt_tokens: list[int],
    path: Path,
    ledger: SeamLedger,
    field: str,
) -> None:
    """The error names what differs; the sequence and the engine notice nothing."""
    sequence.evaluate(prompt_tokens)
    sequence.save(path)
    if field != "model" and not read(path).payload:
        return  # tokens fit every engine
    wrong = foreign(sequence) if field == "model" else {field: "other"}
    edit(path, **wrong)
    sequence.evaluate(prompt_tokens[:2])
    held, before = sequence.tokens, len(ledger.events)
    with pytest.raises(StateMismatchError) as caught:
        sequence.load(path)
    assert {caught.value.field} == set(wrong)
    assert sequence.tokens == held
    assert ledger.events[before:] == []


def damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that are not as they were written."""
    step = max(1, len(data) // 60)
    for place in [*range(0, len(data), step), len(data) - 1]:
        yield f"cut at {place}", data[:place]
        changed = bytes([data[place] ^ 0x10])
        yield f"changed at {place}", data[:place] + changed + data[place + 1 :]
    yield "prolonged", data + b"\0"


@clause("state.file-damaged")
def test_a_damaged_file_is_refused(
    sequence: Sequence, prompt_tokens: list[int], path: Path, ledger: SeamLedger
) -> None:
    """Wherever it is cut or changed; the sequence and the engine notice nothing."""
    sequence.evaluate(prompt_tokens)
    sequence.save(path)
    sequence.evaluate(prompt_tokens[:2])
    held, before = sequence.tokens, len(ledger.events)
    for damage, data in damages(path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(StateError):
            sequence.load(path)
        assert sequence.tokens == held, damage
        assert ledger.events[before:] == [], damage


@clause("state.evaluate")
@pytest.mark.parametrize("seen_by", ["core", "the engine"])
def test_a_state_that_does_not_fit_can_be_evaluated(
    sequence: Sequence,
    prompt_tokens: list[int],
    path: Path,
    ledger: SeamLedger,
    as_new: FreshAnswers,
    seen_by: str,
) -> None:
    """Its tokens are; those of another model are refused even so."""
    sequence.evaluate(prompt_tokens[:-1])
    sequence.save(path)
    loaded = another(sequence)
    if seen_by == "core":
        edit(path, build="another build", kv_type_k="other")
    else:
        ledger.fail("load_state", StateError)
    loaded.load(path, on_mismatch="evaluate")
    assert loaded.tokens == prompt_tokens[:-1]
    assert len(ledger.order("load_state")) == (seen_by == "the engine")
    assert answer(loaded, prompt_tokens) == as_new(prompt_tokens)
    edit(path, **foreign(sequence))
    with pytest.raises(StateMismatchError):
        loaded.load(path, on_mismatch="evaluate")


@clause("state.tokens-only")
def test_without_states_the_tokens_are_saved(
    target: Target,
    prompt_tokens: list[int],
    path: Path,
    ledger: SeamLedger,
    as_new: FreshAnswers,
) -> None:
    """Loading evaluates them, and asks the engine for nothing that it has not."""
    narrow = narrowed(target, frozenset(Capability) - {Capability.STATE_IO})
    with narrow.open(ledger) as llama:
        context = narrow.load(llama).create_context(context_size=SIZE, threads=1)
        sequence = context.get_sequence()
        sequence.evaluate(prompt_tokens[:-1])
        sequence.save(path)
        saved: SavedState = read(path)
        assert (list(saved.tokens), saved.payload) == (prompt_tokens[:-1], b"")
        sequence.clear()
        sequence.load(path)
        assert sequence.tokens == prompt_tokens[:-1]
        assert answer(sequence, prompt_tokens) == as_new(prompt_tokens)
    assert ledger.order("save_state", "load_state") == []


def _full_disk(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@clause("state.atomic")
@pytest.mark.parametrize("failing", ["the disk", "the engine"])
def test_a_save_that_fails_leaves_the_old_file(
    sequence: Sequence,
    prompt_tokens: list[int],
    path: Path,
    ledger: SeamLedger,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
) -> None:
    """It is as it was, and nothing lies beside it."""
    sequence.evaluate(prompt_tokens)
    sequence.save(path)
    before = path.read_bytes()
    sequence.evaluate(prompt_tokens[:2])
    if failing == "the disk":
        monkeypatch.setattr(os, "fsync", _full_disk)
        with pytest.raises(OSError, match="space"):
            sequence.save(path)
    elif Capability.STATE_IO in sequence.context.model.capabilities:
        ledger.fail("save_state", BackendError)
        with pytest.raises(BackendError):
            sequence.save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def converse(model: Model) -> Callable[[Sequence], ChatSession]:
    """``converse(sequence)``: a conversation with the model's own template, if any."""
    template = None if model.info.chat_template else CHAT_TEMPLATE
    return lambda sequence: ChatSession(
        sequence,
        system_prompt="You are brief.",
        chat_template=template,
        overflow="shorten",
    )


@clause("chat.save")
@pytest.mark.parametrize("length", ["short", "too long"])
def test_a_loaded_conversation_goes_on(
    sequence: Sequence,
    converse: Callable[[Sequence], ChatSession],
    path: Path,
    length: str,
) -> None:
    """History, next answer and what is evaluated for it are those of the saved one."""
    params = endless(sequence.context.model)
    chat, loaded = converse(sequence), converse(another(sequence))
    chat.prompt("Hello", params, max_tokens=6)
    while length == "too long" and not chat.forgotten:
        chat.prompt("Go on.", params, max_tokens=6)
    chat.prompt("Go on.", params, max_tokens=6)
    chat.save(path)
    loaded.prompt("Something else", params, max_tokens=6)
    loaded.load(path)
    assert loaded.history == chat.history
    expected = chat.stream("And now?", params, max_tokens=8).result
    result = loaded.stream("And now?", params, max_tokens=8).result
    assert result.tokens == expected.tokens
    assert result.cache == expected.cache
    assert loaded.history == chat.history
