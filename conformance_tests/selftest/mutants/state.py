"""Mutants of state.md."""

from __future__ import annotations

import pytest

from llmcore import ChatSession, Sequence
from llmcore.engine import saving
from llmcore.errors import CapabilityError
from llmcore.state_file import files, layout, matching
from llmcore.values import Capability
from mutants import mutant


@mutant(kills="state.load-equal")
def loses_the_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded sequence lacks the last token of a long saved one."""
    load = Sequence.load

    def short(self, path, **options):
        load(self, path, **options)
        if self.position > 64:
            self.truncate(self.position - 1)

    monkeypatch.setattr(Sequence, "load", short)


@mutant(kills="state.mismatch")
def overlooks_the_kind_of_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a recurrent cache go to a full one."""
    fields = ("backend", "build", "kv_type_k", "kv_type_v")
    monkeypatch.setattr(matching, "_PAYLOAD_FIELDS", fields)


@mutant(kills="state.file-damaged")
def believes_the_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checksum of a file is not compared."""

    class Digest:
        digest_size = 32

        def __init__(self, data=b""):
            pass

        def update(self, data):
            pass

        def digest(self):
            return AnyBytes()

    class AnyBytes(bytes):
        def __new__(cls):
            return super().__new__(cls, 32)

        def __ne__(self, other):
            return False

        def __eq__(self, other):
            return True

        __hash__ = bytes.__hash__

    class Hashes:
        sha256 = Digest

    monkeypatch.setattr(layout, "hashlib", Hashes)


@mutant(kills="state.evaluate")
def evaluates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit raises, whatever the caller asked for."""
    load = saving.load

    def strict(engine, job, path, backend, on_mismatch, believe):
        load(engine, job, path, backend, "error", believe)

    monkeypatch.setattr(saving, "load", strict)


@mutant(kills="state.tokens-only")
def needs_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without states nothing can be saved."""
    save = saving.save

    def demand(engine, *args):
        if Capability.STATE_IO not in engine.info.capabilities:
            raise CapabilityError("the backend has no states: nothing can be saved")
        save(engine, *args)

    monkeypatch.setattr(saving, "save", demand)


@mutant(kills="state.atomic")
def writes_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old file is overwritten from its start."""

    def write(path, state):
        with open(path, "wb") as file:
            for part in layout.pack(state):
                file.write(part)
            file.flush()
            files.os.fsync(file.fileno())

    monkeypatch.setattr(saving, "write", write)


@mutant(kills="chat.save")
def forgets_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded conversation ends with a question."""
    load = ChatSession.load

    def short(self, path, **options):
        load(self, path, **options)
        del self._history[-1:]

    monkeypatch.setattr(ChatSession, "load", short)


@mutant(kills="chat.save")
def forgets_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded conversation is evaluated from its start."""
    load = ChatSession.load

    def anew(self, path, **options):
        load(self, path, **options)
        self.sequence.clear()

    monkeypatch.setattr(ChatSession, "load", anew)
