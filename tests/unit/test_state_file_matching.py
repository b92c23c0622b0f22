"""Whether a saved state belongs where it is to be loaded."""

from __future__ import annotations

from typing import Any

import pytest

from llmcore.errors import ContextOverflowError, StateError, StateMismatchError
from llmcore.state_file import (
    SavedState,
    check,
    differences,
)

from .fuzz_state_file import (
    header,
)

OTHERS = {
    "model": "ffff",
    "backend": "llama_cpp",
    "build": "null 2.0",
    "cache_kind": "hybrid",
    "kv_type_k": "q8_0",
    "kv_type_v": "f16",
}


def state(**fields: Any) -> SavedState:
    return SavedState(header=header(**fields), tokens=(1, 2, 3), payload=b"x")


class TestCheck:
    def test_same(self) -> None:
        """A state belongs where it was saved."""
        check(state(), header(), needs_payload=True)

        assert [] == differences(header(), header())

    @pytest.mark.parametrize("name", OTHERS)
    def test_each(self, name: str) -> None:
        """Each field that differs is named, with both of its values."""
        here = header(**{name: OTHERS[name]})

        with pytest.raises(StateMismatchError) as caught:
            check(state(), here, needs_payload=True)

        error = caught.value
        assert (name, OTHERS[name]) == (error.field, error.here)
        assert getattr(header(), name) == error.saved

    def test_order(self) -> None:
        """All differences are found, the model first."""
        assert list(OTHERS) == differences(header(), header(**OTHERS))

    @pytest.mark.parametrize("name", list(OTHERS)[1:])
    def test_tokens_only(self, name: str) -> None:
        """Tokens can be evaluated again by any engine with the same model."""
        check(state(), header(**{name: OTHERS[name]}), needs_payload=False)

    def test_tokens_of_another_model(self) -> None:
        """Tokens of another model mean something else and are refused."""
        with pytest.raises(StateMismatchError, match="its model is"):
            check(state(), header(model="ffff"), needs_payload=False)

    @pytest.mark.parametrize(("saved", "here"), [("", "ab"), ("ab", ""), ("", "")])
    def test_unknown_model(self, saved: str, here: str) -> None:
        """Without a fingerprint on both sides the vocabularies are compared."""
        check(state(model=saved), header(model=here), needs_payload=True)

        with pytest.raises(StateMismatchError, match="its vocab_size is 1000"):
            check(
                state(model=saved), header(model=here, vocab_size=9), needs_payload=True
            )

    @pytest.mark.parametrize("needs_payload", [True, False])
    def test_room(self, needs_payload: bool) -> None:
        """A smaller context will do as long as the tokens fit."""
        check(state(), header(context_size=3), needs_payload=needs_payload)

        with pytest.raises(ContextOverflowError, match="the saved state needs"):
            check(state(), header(context_size=2), needs_payload=needs_payload)

    def test_no_payload(self) -> None:
        """A state of tokens alone cannot be loaded as a payload."""
        saved = SavedState(header=header(), tokens=(1,))

        check(saved, header(), needs_payload=False)
        with pytest.raises(StateError, match="holds only its tokens"):
            check(saved, header(), needs_payload=True)

    def test_version_of_llmcore(self) -> None:
        """Which llmcore wrote a state does not matter; its format does."""
        check(state(), header(llmcore="9.9"), needs_payload=True)
