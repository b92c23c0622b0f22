"""What the suite cannot know: our format, and what such a model says."""

import pytest

import llmcore
from llmcore.errors import ModelLoadError
from llmcore.testing import checked
from llmcore_example.testing import write_model


@pytest.fixture
def engine():
    """The backend behind a seam that is checked, and was in order at the end."""
    engine = checked("example")
    yield engine
    assert (engine.violations, engine.live) == ([], {})


def test_goes_on_like_its_text(engine, tmp_path):
    """What follows is what most often followed in the text."""
    write_model(tmp_path / "tale.markov")
    with llmcore.get_llama(engine) as llama:
        model = llama.load_model(tmp_path / "tale.markov")
        sequence = model.create_context(context_size=64).get_sequence()
        prompt = model.tokenize("there was a king")
        answer = sequence.generate(prompt, max_tokens=20, temperature=0).result

    assert answer.text == " had three sons, and"


@pytest.mark.parametrize("content", [b"", b"markov", b"markov\n", b"a text"])
def test_refuses_other_files(engine, tmp_path, content):
    """A file without the first line, or with nothing after it, is no model."""
    path = tmp_path / "bad.markov"
    path.write_bytes(content)
    with llmcore.get_llama(engine) as llama, pytest.raises(ModelLoadError):
        llama.load_model(path)
