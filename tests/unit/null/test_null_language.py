"""What the null model says, and how it cuts text."""

from __future__ import annotations

import ast
import doctest
import inspect
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmcore
import llmcore.backends.null as null
import llmcore.testing
from llmcore.backends.null import vocabulary
from llmcore.testing import NullScript, null_backend
from llmcore.values import CacheKind, Capability, ModelParams

from .conftest import MakeEngine

PROMPT = list(b"Once upon a time")
PINNED = b"hursmreoqjq andnszv tei"


class TestPlugin:
    def test_light(self) -> None:
        """Importing the plugin module loads neither NumPy nor the engine."""
        code = (
            "import sys, llmcore.backends.null; "
            "print([m for m in ('numpy', 'llmcore.backends.null.backend') "
            "if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True)
        assert done.stdout.strip() == b"[]", done.stderr

    def test_engine_without_numpy(self) -> None:
        """The engine itself imports no NumPy before logits are read."""
        code = "import sys, llmcore.testing; print('numpy' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True)
        assert done.stdout.strip() == b"False", done.stderr

    def test_factory(self) -> None:
        """The factory that the plugin names makes an obedient backend."""
        module, _, attribute = null.llmcore_backend_info().factory.partition(":")
        factory = getattr(__import__(module, fromlist=[attribute]), attribute)
        backend = factory()
        assert backend.info == null.INFO

    def test_no_gpu(self) -> None:
        """All capabilities but the GPU are declared."""
        assert set(Capability) - null.INFO.capabilities == {Capability.GPU}

    def test_docstring_example(self) -> None:
        """The example in the public docstring works."""
        assert doctest.testmod(llmcore.testing).failed == 0

    def test_info_is_narrowed(self) -> None:
        """A script narrows the declared capabilities and the exclusion scope."""
        some = frozenset({Capability.LOGITS})
        backend = null_backend(NullScript(capabilities=some, exclusion="process"))
        assert (some, "process") == (backend.info.capabilities, backend.info.exclusion)


class TestVocabulary:
    @given(st.binary())
    def test_round_trip(self, text: bytes) -> None:
        """Any bytes come back from their tokens, and no control token appears."""
        tokens = vocabulary.tokenize(text)
        assert text == b"".join(map(vocabulary.piece, tokens))
        assert all(token < vocabulary.FIRST_CONTROL for token in tokens)

    def test_words(self) -> None:
        """Some tokens hold several bytes."""
        assert [ord("a"), 256] == vocabulary.tokenize(b"a the")

    def test_control_text_stays_text(self, engine: MakeEngine) -> None:
        """Text that looks like a control token stays text."""
        assert list(b"</s>") == engine().model.tokenize(b"</s>")

    def test_control_tokens_have_no_text(self, engine: MakeEngine) -> None:
        """Control tokens are known to the model and have no bytes."""
        model = engine().model
        assert {b""} == {model.piece(t) for t in model.info.special_tokens.values()}

    def test_chat_template(self) -> None:
        """The chat template is ChatML."""
        jinja2 = pytest.importorskip("jinja2")
        messages = [{"role": "user", "content": "Hi"}]
        text = jinja2.Template(vocabulary.CHAT_TEMPLATE).render(
            messages=messages, add_generation_prompt=True
        )
        assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


class TestLanguage:
    def test_repeatable(self, engine: MakeEngine) -> None:
        """Equal cache contents give equal text in every instance."""
        assert engine().write(PROMPT, 20) == engine().write(PROMPT, 20)

    def test_pinned(self, engine: MakeEngine) -> None:
        """The text is the same in every process and every version."""
        one = engine()
        assert one.text(one.write(PROMPT, 20)) == PINNED

    def test_readable(self, engine: MakeEngine) -> None:
        """Without a script the text is lower-case letters and spaces, without end."""
        one = engine(context_size=256)
        assert one.text(one.write(PROMPT, 200)).replace(b" ", b"a").islower()

    @pytest.mark.parametrize("change", [[99], PROMPT[1:], [*PROMPT[:-2], 1, 2]])
    def test_every_cell_counts(self, engine: MakeEngine, change: list[int]) -> None:
        """Another, missing or stale cell changes the text."""
        assert engine().write(PROMPT, 20) != engine().write(change, 20)

    def test_positions_count(self, engine: MakeEngine) -> None:
        """The same tokens at other positions give another text."""
        one, two = engine(), engine()
        one.feed(PROMPT)
        two.feed(PROMPT)
        two.context.remove(0, 3, 5)
        two.context.shift(0, 5, 100, -2)
        three = engine()
        three.feed(PROMPT[:3] + PROMPT[5:])
        here = [e.write([7], 9, at=14) for e in (two, three)]
        assert here[0] == here[1] != one.write([7], 9, at=16)

    def test_names_differ(self, engine: MakeEngine) -> None:
        """Models of different names speak differently."""
        other = engine(NullScript(name="other"))
        assert engine().write(PROMPT, 20) != other.write(PROMPT, 20)

    @pytest.mark.parametrize("answer", ["Paris.", "Zürich 🏔", "", "aaab"])
    def test_answer(self, engine: MakeEngine, answer: str) -> None:
        """A scripted answer is said in full, then the end token comes."""
        one = engine(NullScript(answer=answer))
        count = len(one.model.tokenize(answer.encode())) + 1
        said = one.write(PROMPT, count)
        assert answer.encode() == one.text(said)
        assert said[-1] in one.model.info.end_tokens

    def test_answer_can_change(self, engine: MakeEngine) -> None:
        """The answer may change from turn to turn."""
        one = engine(NullScript(answer="x"))
        one.write(PROMPT, 2)
        one.script.answer = "y"
        assert ord("y") == one.feed([vocabulary.END_OF_TURN, 10], at=len(PROMPT) + 1)

    def test_distribution(self, engine: MakeEngine) -> None:
        """The next token is a clear maximum, then printable ones, then the rest."""
        one = engine()
        best = one.feed(PROMPT)
        values = one.context.logits(len(PROMPT) - 1).tolist()
        assert values[best] == 6.0
        assert all(0 <= values[n] < 4 for n in range(32, 127) if n != best)
        assert all(-8 <= values[n] < -4 for n in range(128, 256))
        assert values[vocabulary.EOS] == -16.0

    def test_logits_turn_into_nan(self, engine: MakeEngine) -> None:
        """Logits that are kept over the next call are unmistakably wrong."""
        one = engine()
        one.feed(PROMPT)
        view = one.context.logits(0)
        one.context.bounds(0)
        assert (view != view).all()

    def test_embedding(self, engine: MakeEngine) -> None:
        """A vector depends on the sequence alone and belongs to the caller."""
        one = engine(embeddings=True)
        one.feed(PROMPT)
        one.feed(PROMPT, sequence=1)
        vectors = [one.context.embedding(n) for n in (0, 1)]
        assert (one.model.info.embedding_size,) == vectors[0].shape
        assert (vectors[0] == vectors[1]).all()
        assert vectors[0].flags.owndata

    def test_info_is_one_object(self, engine: MakeEngine) -> None:
        """The facts about a model are the same object every time."""
        model = engine().model
        assert model.info is model.info

    def test_identity(self, engine: MakeEngine) -> None:
        """Models that differ have other fingerprints; the build names the engine."""
        scripts = [NullScript(), NullScript(answer="x"), NullScript(name="other")]
        scripts += [NullScript(cache_kind=CacheKind.RECURRENT), NullScript(window=8)]
        prints = [engine(script).model.info.fingerprint for script in scripts]
        assert all(bytes.fromhex(one) for one in prints)
        assert prints[0] == prints[1]
        assert len(set(prints)) == len(prints) - 1
        assert engine().model.info.build == f"null {llmcore.__version__}"

    def test_path_is_ignored(self, tmp_path: object) -> None:
        """A path makes no difference."""
        backend = null_backend()
        model = backend.load_model(tmp_path, ModelParams(), lambda _: True)  # type: ignore[arg-type]
        assert model.info.name == "null"


def test_imports_of_the_engine() -> None:
    """No module of the engine imports NumPy outside a function."""
    for name in ("context", "model", "backend", "language", "sampler"):
        module = __import__(f"llmcore.backends.null.{name}", fromlist=["x"])
        tops = ast.parse(inspect.getsource(module)).body
        names = [a.name for t in tops if isinstance(t, ast.Import) for a in t.names]
        assert "numpy" not in names
