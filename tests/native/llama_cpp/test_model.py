"""Loading, the facts about a model, and its vocabulary."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcore.backends.llama_cpp import INFO
from llmcore.backends.llama_cpp.backend import LlamaCppBackend
from llmcore.backends.llama_cpp.model import LlamaCppModel
from llmcore.errors import CapabilityError, ModelLoadError, OperationCancelledError
from llmcore.values import CacheKind, Capability, ContextParams, ModelParams


class TestLoading:
    def test_progress_begins_and_ends(
        self, backend: LlamaCppBackend, paths: dict[str, Path]
    ) -> None:
        """Progress starts with 0, ends with one 1, and never goes back."""
        shares: list[float] = []

        def progress(share: float) -> bool:
            shares.append(share)
            return True

        backend.load_model(paths["llama"], ModelParams(), progress).close()

        assert shares[0] == 0.0
        assert shares[-1] == 1.0
        assert sorted(set(shares)) == shares

    @pytest.mark.parametrize("limit", [0.0, 0.5, 1.0])
    def test_cancel(
        self, backend: LlamaCppBackend, paths: dict[str, Path], limit: float
    ) -> None:
        """A load can be cancelled at its start, in its middle and at its end."""
        with pytest.raises(OperationCancelledError, match=r"llama\.gguf"):
            backend.load_model(paths["llama"], ModelParams(), lambda s: s < limit)

    @pytest.mark.parametrize("limit", [0.0, 0.5, 1.0])
    def test_progress_raises(
        self, backend: LlamaCppBackend, paths: dict[str, Path], limit: float
    ) -> None:
        """What the progress callback raises ends the load and reaches the caller."""

        def progress(share: float) -> bool:
            if share >= limit:
                raise KeyboardInterrupt
            return True

        with pytest.raises(KeyboardInterrupt):
            backend.load_model(paths["llama"], ModelParams(), progress)

    def test_cut_file(
        self, backend: LlamaCppBackend, paths: dict[str, Path], tmp_path: Path
    ) -> None:
        """A failed load says which file, and why in the engine's words."""
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(paths["llama"].read_bytes()[:-1000])

        with pytest.raises(ModelLoadError, match=r"cut\.gguf.*not within the file"):
            backend.load_model(cut, ModelParams(), lambda share: True)

    def test_no_gpu(self, backend: LlamaCppBackend, paths: dict[str, Path]) -> None:
        """Layers for a GPU are refused by a build that has none, not ignored."""
        if any(device.kind != "cpu" for device in backend.devices()):
            pytest.skip("this build has a GPU")

        with pytest.raises(CapabilityError, match="gpu_layers=1"):
            backend.load_model(
                paths["llama"], ModelParams(gpu_layers=1), lambda share: True
            )

    def test_without_gpu(
        self,
        backend: LlamaCppBackend,
        paths: dict[str, Path],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """With no layer on a GPU nothing of a model or context is there at all."""
        gpus = [
            d.name for d in backend.devices() if d.kind not in ("cpu", "accelerator")
        ]
        if not gpus:
            pytest.skip("this build has no GPU")
        with caplog.at_level(logging.DEBUG, "llmcore.llama_cpp"):
            params = ModelParams(gpu_layers=0)
            model = backend.load_model(paths["llama"], params, lambda share: True)
            model.create_context(ContextParams(context_size=256)).close()
            model.close()

        buffers = [text for text in caplog.messages if "buffer size" in text]
        assert buffers
        assert not [text for text in buffers if any(gpu in text for gpu in gpus)]

    @pytest.mark.parametrize("mmap", [True, False])
    def test_mmap(
        self, backend: LlamaCppBackend, paths: dict[str, Path], mmap: bool
    ) -> None:
        """A file can be mapped or read."""
        model = backend.load_model(
            paths["llama"], ModelParams(mmap=mmap), lambda share: True
        )
        assert model.tokenize(b"text")
        model.close()


class TestFacts:
    def test_devices(self, backend: LlamaCppBackend) -> None:
        """The CPU is a device with its memory."""
        cpu = next(d for d in backend.devices() if d.kind == "cpu")

        assert 0 < cpu.free <= cpu.total

    def test_chat_model(self, llama: LlamaCppModel) -> None:
        """The facts of the file come back as they were written."""
        info = llama.info

        assert (
            info.architecture,
            info.name,
            info.trained_context,
        ) == ("llama", "tiny llama", 1024)
        assert (
            info.layers,
            info.heads,
            info.kv_heads,
            info.embedding_size,
        ) == (2, 2, 1, 64)
        assert (info.bos_token, info.eos_token, info.add_bos) == (1, 2, True)
        assert {2, 260} == info.end_tokens
        assert info.special_tokens["<|im_start|>"] == 259
        assert info.chat_template is not None
        assert info.metadata["llama.context_length"] == "1024"

    @pytest.mark.parametrize(
        ("name", "kind", "missing"),
        [
            ("llama", CacheKind.FULL, set()),
            ("sliding", CacheKind.SLIDING_WINDOW, {Capability.SHIFT}),
            (
                "recurrent",
                CacheKind.RECURRENT,
                {Capability.SHIFT, Capability.PARTIAL_REMOVE},
            ),
            (
                "embedding",
                CacheKind.NONE,
                {
                    Capability.SHIFT,
                    Capability.PARTIAL_REMOVE,
                    Capability.COPY,
                    Capability.STATE_IO,
                    Capability.LOGITS,
                    Capability.NATIVE_SAMPLING,
                },
            ),
        ],
    )
    def test_capabilities(
        self,
        models: dict[str, LlamaCppModel],
        name: str,
        kind: CacheKind,
        missing: set[Capability],
    ) -> None:
        """A model declares what its kind of cache can do, and no more."""
        info = models[name].info

        assert kind is info.cache_kind
        assert missing == INFO.capabilities - info.capabilities - {Capability.GPU}


class TestVocabulary:
    # U+2581 stands for a space in such a vocabulary.
    @given(text=st.text(st.characters(codec="utf-8", exclude_characters="\u2581")))
    def test_any_text(self, models: dict[str, LlamaCppModel], text: str) -> None:
        """The pieces of a text's tokens are the text, whatever is in it."""
        llama = models["llama"]
        pieces = map(llama.piece, llama.tokenize(text.encode()))

        assert text == b"".join(pieces).decode()

    @given(text=st.binary(max_size=200))
    def test_any_bytes(self, models: dict[str, LlamaCppModel], text: bytes) -> None:
        """Bytes that are no text become the tokens of a replacement character."""
        llama = models["llama"]
        pieces = map(llama.piece, llama.tokenize(text))
        expected = text.decode(errors="replace").replace("\u2581", " ")

        assert expected == b"".join(pieces).decode()

    @pytest.mark.parametrize("name", ["embedding", "smol"])
    @given(text=st.binary(max_size=200))
    def test_other_vocabularies(
        self,
        models: dict[str, LlamaCppModel],
        smol: LlamaCppModel,
        name: str,
        text: bytes,
    ) -> None:
        """Bytes that are no text do no harm to WordPiece and byte-pair vocabularies."""
        model = (models | {"smol": smol})[name]

        assert all(0 <= t < model.info.vocab_size for t in model.tokenize(text))

    @pytest.mark.parametrize("text", [b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf"])
    def test_beyond_unicode(
        self, models: dict[str, LlamaCppModel], text: bytes
    ) -> None:
        """A code point that does not exist does not end the process."""
        tokenize = models["embedding"].tokenize

        assert tokenize(b"a") == tokenize(text + b" a")

    @pytest.mark.parametrize(
        "text", ["Hello world", "  äöü €100\n\n", "日本語", "🦜 in a tree", ""]
    )
    def test_real_text(self, smol: LlamaCppModel, text: str) -> None:
        """A real byte-pair vocabulary gives back a text."""
        pieces = map(smol.piece, smol.tokenize(text.encode()))

        assert text == b"".join(pieces).decode()

    @pytest.mark.parametrize(
        "text", [b"a", b"7", b" ", b"\xe2\x82\xac", b"\xff", b"\0"]
    )
    def test_long(self, smol: LlamaCppModel, text: bytes) -> None:
        """A long text without a break does not exhaust the engine's stack."""
        assert smol.tokenize(text * 50_000)

    def test_control_stays_text(self, llama: LlamaCppModel) -> None:
        """Text that looks like a control token becomes no control token."""
        tokens = llama.tokenize(b"<|im_end|>")

        assert not set(llama.info.special_tokens.values()) & set(tokens)

    def test_control_has_no_text(self, llama: LlamaCppModel) -> None:
        """A control token has no bytes."""
        assert llama.piece(llama.info.special_tokens["<|im_end|>"]) == b""

    @pytest.mark.parametrize("token", [-1, 2**31 - 1])
    def test_range(self, llama: LlamaCppModel, token: int) -> None:
        """A token number that is out of range never reaches the engine."""
        with pytest.raises(ValueError, match="token must be between 0 and"):
            llama.piece(token)
