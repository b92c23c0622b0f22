"""What is recommended for a budget: what fits, in which order, and why."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner

from llmcore.cli.recommend import recommend as command
from llmcore.cli.recommend import size_of
from llmcore.errors import InsufficientMemoryError
from llmcore.gguf_header import GGUFHeader, GGUFTensor
from llmcore.memory import Budget
from llmcore.memory.recommend import ADVISED_FROM, recommend, recommend_kv_type
from llmcore_conformance.models import tiny_llama

GIB = 1 << 30
WEIGHTS = 4 * GIB


def header(*, heads: int = 32, trained: int = 131072) -> GGUFHeader:
    """A model with the sizes of Llama-3-8B in four bits."""
    names = ("token_embd.weight", "output.weight")
    tensors = [
        GGUFTensor(
            name=name, shape=(4096, 128256), type="Q4_0", offset=0, size=GIB // 4
        )
        for name in names
    ]
    rest = (WEIGHTS - GIB // 2) // 32
    tensors += [
        GGUFTensor(
            name=f"blk.{i}.ffn_up.weight",
            shape=(4096,),
            type="Q4_0",
            offset=0,
            size=rest,
        )
        for i in range(32)
    ]
    return GGUFHeader(
        version=3,
        architecture="llama",
        tensor_count=len(tensors),
        data_offset=0,
        metadata={
            "general.name": "eight",
            "llama.block_count": 32,
            "llama.embedding_length": 4096,
            "llama.feed_forward_length": 14336,
            "llama.context_length": trained,
            "llama.attention.head_count": heads,
            "llama.attention.head_count_kv": 8,
        },
        tensors=tuple(tensors),
    )


EIGHT = header()


def budget(size: float) -> Budget:
    """GiB without headroom."""
    return Budget(int(size * GIB), headroom=0.0)


def listed(size: float, **others: object) -> list[tuple[int, str, bool]]:
    """Length, cache type, and whether that is a good choice at this length."""
    return [
        (one.context.size, one.context.kv_type_k, one.advised)
        for one in recommend(EIGHT, budget(size), **others)  # type: ignore[arg-type]
    ]


def test_with_much_memory_the_longest_in_f16_is_best():
    """If memory allows it is f16, the longest context first."""
    lengths = [131072, 65536, 32768, 16384, 8192, 4096, 2048]
    assert [(length, "f16", True) for length in lengths] == listed(1000)


def test_a_longer_context_gets_a_smaller_cache():
    """q8_0 is a good choice from 8K on, and q4_0 from 32K on."""
    assert [
        (32768, "q4_0", True),
        (16384, "q8_0", True),
        (8192, "f16", True),
        (4096, "f16", True),
        (2048, "f16", True),
    ] == listed(6)


def test_what_just_fits_comes_last():
    """Where only a type fits that is no good choice at this length, that is said."""
    found = listed(4.65, context_sizes=(2048, 8192))
    assert [(2048, "f16", True), (8192, "q4_0", False)] == found


def test_the_reason_is_told():
    """Each tells why: that f16 fits, or what it would have needed."""
    fits, small = recommend(EIGHT, budget(6), context_sizes=(8192, 16384))[::-1]
    assert "f16 fits" == fits.why
    assert "f16 would need" in small.why
    assert small.why.endswith("q8_0 is a good choice from 8192 tokens on")


def test_too_little_memory_has_no_recommendation():
    """A budget below the weights is an empty list."""
    assert [] == recommend(EIGHT, budget(4))


@given(size=st.integers(0, 40), count=st.integers(1, 8))
def test_what_is_recommended_fits(size, count):
    """Every recommendation fits its budget, with the headroom, and is the best type."""
    there = Budget(size * GIB)
    for one in recommend(EIGHT, there, sequences=(count,)):
        assert there.shortage(one.footprint, "it") is None
        assert count == one.context.sequences
        assert one.advised == (one.context.size >= ADVISED_FROM[one.context.kv_type_k])


def test_more_memory_is_never_worse():
    """With a larger budget no length gets a smaller cache type."""
    types = list(ADVISED_FROM)
    before: dict[int, int] = {}
    for size in range(5, 30):
        now = {length: types.index(kind) for length, kind, _ in listed(size)}
        assert before.keys() <= now.keys()
        assert all(now[length] <= kind for length, kind in before.items())
        before = now


def test_sequences_cost():
    """Several sequences have a cache each."""
    one, four = recommend(EIGHT, budget(1000), context_sizes=(4096,), sequences=(1, 4))[
        ::-1
    ]
    assert 4 * one.footprint.of("cache") == four.footprint.of("cache") == 2 * GIB


def test_what_the_model_cannot_have_is_not_recommended():
    """Heads of 48 values have no quantised cache."""
    odd = header(heads=4096 // 48)
    assert {"f16"} == {
        one.context.kv_type_k for one in recommend(odd, budget(1000), sequences=(1, 2))
    }
    assert all("q" not in one.context.kv_type_k for one in recommend(odd, budget(6)))


def test_values_stay_without_flash_attention():
    """Where flash attention is off, only the keys become smaller."""
    found = recommend(EIGHT, budget(9.6), context_sizes=(32768,), flash_attention=False)
    assert [("q8_0", "f16")] == [
        (one.context.kv_type_k, one.context.kv_type_v) for one in found
    ]


def test_a_short_training_is_a_short_list():
    """A model for 1024 tokens has that one length."""
    found = recommend(header(trained=1024), budget(1000))
    assert [1024] == [one.context.size for one in found]


def test_one_length_has_one_best_type():
    """`recommend_kv_type` answers for one length, or says that nothing fits."""
    assert "q8_0" == recommend_kv_type(EIGHT, 16384, budget(6)).context.kv_type_v
    with pytest.raises(InsufficientMemoryError, match="no cache of 16384 tokens fits"):
        recommend_kv_type(EIGHT, 16384, budget(4))


# -- the command -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 << 30), ("4 GB", 4 * 10**9), ("0.5MiB", 1 << 19), ("12", 12)],
)
def test_sizes_are_read(text, size):
    """A number with a unit is bytes."""
    assert size == size_of(text)


@pytest.mark.parametrize("text", ["", "4g", "four", "-1GiB", "1.5.2", "GiB", "inf"])
def test_other_sizes_are_refused(text):
    """What is no size is an error that tells the units."""
    with pytest.raises(ValueError, match=r"is no size: give a number and one of .*GiB"):
        size_of(text)


@pytest.fixture(name="run")
def _run(tmp_path):
    """The command on a tiny model, as a function of its options."""
    app = Typer()
    app.command()(command)
    model = tiny_llama(tmp_path / "tiny.gguf")
    return lambda *args: CliRunner().invoke(app, [str(model), *args])


def test_the_command_lists_what_fits(run):
    """The command prints a line for each, best first."""
    done = run("--budget", "1GiB", "--ctx", "256", "--ctx", "512")
    assert 0 == done.exit_code
    lines = done.stdout.splitlines()
    assert lines[0].startswith("--ctx 512 --sequences 1 --kv f16: ")
    assert 2 == len(lines)


def test_the_command_speaks_json(run):
    """With ``--json`` each line is an object with the bytes."""
    done = run("--budget", "1GiB", "--ctx", "256", "--json")
    found = json.loads(done.stdout)
    assert (256, "f16", True) == (
        found["context_size"],
        found["kv_type_k"],
        found["advised"],
    )
    assert found["total"] == sum(found["purposes"].values())


def test_the_command_fails_if_nothing_fits(run):
    """With too little memory it says so, and the exit code is 1."""
    done = run("--budget", "1KiB")
    assert (1, "") == (done.exit_code, done.stdout)
    assert "nothing fits" in done.stderr
