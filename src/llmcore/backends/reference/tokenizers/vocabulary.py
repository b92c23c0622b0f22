"""The tokens of a file: their texts, what kind they are, and the special ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen
from gguf import TokenType

from llmcore.backends.reference.gguf_file import InvalidModelError, Settings

# Texts by which llama.cpp knows, besides the numbers in the file, that a token ends an
# answer (llama-vocab.cpp); it takes them for control tokens too.
# fmt: off
END_TEXTS = frozenset({
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>",
    "<|calls|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>",
    "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>",
    "<turn|>", "<|tool_response>", "<\uff5cend▁of▁sentence\uff5c>", "[e~[",
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>",
    "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
})
# fmt: on
END_NUMBERS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")

HIDDEN = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.UNUSED)
"""Kinds of tokens that have no text."""


@frozen(kw_only=True)
class Vocabulary:
    """
    Never changes. ``kinds`` are of `gguf.TokenType`.

    ``scores`` are of SentencePiece, ``merges`` of byte-level BPE; else empty.
    """

    texts: Sequence[str] = field(repr=False)
    kinds: Sequence[TokenType] = field(repr=False)
    scores: Sequence[float] = field(repr=False)
    merges: Sequence[str] = field(repr=False)
    numbers: Mapping[str, int] = field(repr=False)
    special: Mapping[str, int]
    """The numbers that have a role, such as ``"bos"``."""

    @classmethod
    def read(cls, settings: Settings, defaults: Mapping[str, int]) -> Vocabulary:
        """
        Args:
            defaults: Roles of tokens if the file does not say.
        """
        texts = [str(text) for text in settings.array("tokenizer.ggml.tokens")]
        if not texts:
            raise InvalidModelError("it has no vocabulary")
        kinds = [
            TokenType(kind) for kind in settings.array("tokenizer.ggml.token_type")
        ] or [TokenType.NORMAL] * len(texts)
        special = dict(defaults) | {
            role: int(number)
            for role in {*defaults, *END_NUMBERS}
            if (number := settings.metadata.get(f"tokenizer.ggml.{role}_token_id"))
            is not None
        }
        for number, text in enumerate(texts):
            if text in END_TEXTS:
                kinds[number] = TokenType.CONTROL
        return cls(
            texts=texts,
            kinds=kinds,
            scores=settings.array("tokenizer.ggml.scores"),
            merges=settings.array("tokenizer.ggml.merges"),
            numbers={text: number for number, text in enumerate(texts)},
            special={role: n for role, n in special.items() if 0 <= n < len(texts)},
        )

    @property
    def end_tokens(self) -> frozenset[int]:
        """Numbers of the tokens that end an answer."""
        by_text = {self.numbers[text] for text in END_TEXTS & self.numbers.keys()}
        by_number = {self.special[role] for role in END_NUMBERS if role in self.special}
        return frozenset(by_text | by_number)

    def of_kind(self, kind: TokenType) -> dict[str, int]:
        """Texts and numbers of all tokens of a kind."""
        return {
            text: number
            for number, text in enumerate(self.texts)
            if self.kinds[number] == kind
        }
