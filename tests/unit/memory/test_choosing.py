"""What "auto" and ranges come to, on the null engine and by its scripted failures."""

from __future__ import annotations

import pytest
from attrs import evolve

import llmcore
from llmcore.backends.null.backend import NullBackend
from llmcore.backends.null.script import NullScript
from llmcore.errors import ContextCreationError, InsufficientMemoryError, ParameterError
from llmcore.memory import Budget, Footprint, Term
from llmcore.memory.choosing import (
    allowed,
    check_cache_types,
    context_plan,
    create,
    free_now,
    given,
    gpu_layers,
    load,
    model_plan,
    shortages,
)
from llmcore.memory.ladder import LADDER, Plan, Room
from llmcore.memory.shape import LayerShape, ModelShape
from llmcore.params import ContextParams, ModelParams
from llmcore.values import Device

BYTES = 64
LAYERS = 8


def context_bytes(plan: Plan) -> Footprint:
    """So many bytes for each token that a context can hold."""
    size = int(plan.context.context_size) * plan.context.sequences * BYTES
    return Footprint((Term(device="cpu", purpose="cache", size=size),))


def model_bytes(plan: Plan) -> Footprint:
    """A hundred bytes for each layer, on a GPU or not."""
    layers = plan.model.gpu_layers
    on_gpu = LAYERS if layers == "auto" else layers
    sizes = {"gpu": 100 * on_gpu, "cpu": 100 * (LAYERS - on_gpu)}
    return Footprint(
        tuple(Term(device=d, purpose="weights", size=s) for d, s in sizes.items())
    )


def room(tokens: int) -> Room:
    """Memory for so many tokens."""
    budget = Budget(tokens * BYTES, headroom=0.0)
    return Room(estimate=context_bytes, shortage=shortages("a context", budget))


def gpu(layers: float) -> Room:
    """A GPU for so many layers, and RAM without limit."""
    budget = Budget({"cpu": None, "gpu": int(100 * layers)}, headroom=0.0)
    return Room(
        estimate=model_bytes, shortage=shortages("a model", budget), layers=LAYERS
    )


def size_of(size: object, tokens: int, trained: int = 0) -> object:
    """What a context size comes to, if there is memory for so many tokens."""
    params = ContextParams(context_size=size)
    plan = context_plan(params, given(ContextParams, params, {}), trained)
    return create(plan, lambda made: made.context.context_size, room(tokens))[0]


@pytest.fixture(name="script")
def _script():
    return NullScript()


@pytest.fixture(name="llama")
def _llama(script):
    with llmcore.get_llama(NullBackend(script)) as llama:
        yield llama


@pytest.fixture(name="model")
def _model(llama):
    return llama.load_model()


# -- the size of a context -------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "tokens", "trained", "comes_to"),
    [
        ("auto", 10**9, 0, 4096),
        ("auto", 10**9, 2048, 2048),
        ("auto", 10**9, 100, 100),
        ("auto", 10**9, 32768, 4096),
        ("auto", 3000, 32768, 2816),
        ("auto", 600, 32768, 512),
        ((100, 8192), 10**9, 0, 8192),
        ((100, 8192), 10**9, 4000, 4000),
        ((6000, 8192), 10**9, 4000, 6000),
        ((100, 8192), 5000, 0, 4864),
        ((100, 8192), 130, 0, 100),
        ((1000, 1100), 1099, 0, 1024),
        ((700, 700), 700, 0, 700),
        (700, 10**9, 100, 700),
    ],
)
def test_a_context_is_as_large_as_fits(size, tokens, trained, comes_to):
    """The most that is asked for, or the largest multiple of 256 that fits."""
    assert comes_to == size_of(size, tokens, trained)


@pytest.mark.parametrize("size", ["auto", (500, 8192), 500])
def test_a_context_that_does_not_fit_is_refused(size):
    """If not even the least fits, the error tells what there is, and of what."""
    with pytest.raises(InsufficientMemoryError, match="a context needs") as caught:
        size_of(size, 99)
    assert 99 * BYTES == caught.value.account.pools[0].limit
    assert int(caught.value.account.footprint.total / BYTES) in (500, 512)


def test_the_ladder_goes_before_a_smaller_context():
    """With a ladder "auto" starts from the most, and its own order decides."""
    plan = context_plan(ContextParams(), frozenset())
    fitted = create(plan, lambda made: None, room(1024), LADDER)[1]
    assert 1024 == fitted.plan.context.context_size
    assert ["smaller context"] * 2 == [step.name for step in fitted.steps]


@pytest.mark.parametrize(
    "size",
    [(7, 9), (9, 8), (1,), (8, 9, 10), (8, 2**31), (8.0, 9), ("8", 9), (8, True)],
)
def test_a_range_must_make_sense(size):
    """A range is two integers, least first, both in the range of a context size."""
    with pytest.raises((ValueError, TypeError), match="context_size must be"):
        ContextParams(context_size=size)


def test_a_range_can_be_a_list():
    """A list, as in JSON, is a range too."""
    assert (8, 9) == ContextParams(context_size=[8, 9]).context_size


def test_a_range_is_no_size():
    """Where a number is needed, what is still to be chosen says so."""
    assert 512 == ContextParams(context_size=512).size
    for size in ("auto", (8, 9)):
        with pytest.raises(TypeError, match="is no number yet"):
            _ = ContextParams(context_size=size).size


# -- what the caller gave --------------------------------------------------------------


def test_what_the_caller_gave_is_pinned():
    """Fields that stand alone, and those of an object that are not the default."""
    params = ContextParams(batch_size=64, micro_batch_size=64)
    fields = {"kv_type_k": "f16", "context_size": 100}
    names = {"batch_size", "micro_batch_size", "kv_type_k", "context_size"}
    assert names == given(ContextParams, params, fields)
    assert frozenset() == given(ModelParams, None, {"gpu_layers": "auto"})
    assert frozenset() == given(ContextParams, None, {"context_size": (8, 99)})


def test_a_context_leaves_its_model_alone():
    """The plan of a context pins all of the model, that of a model the context."""
    assert {"gpu_layers", "mmap"} < context_plan(ContextParams(), frozenset()).pinned
    assert {"batch_size", "offload_kv"} < model_plan(ModelParams(), frozenset()).pinned


# -- layers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "there", "comes_to"),
    [("auto", 8, "auto"), ("auto", 5.5, 5), ("auto", 1, 1), (3, 4, 3)],
)
def test_as_many_layers_as_fit(asked, there, comes_to):
    """All of them if they fit, else as many as do."""
    params = ModelParams(gpu_layers=asked)
    plan = model_plan(params, given(ModelParams, params, {}))
    assert comes_to == load(plan, lambda made: made.model.gpu_layers, gpu(there))[0]


@pytest.mark.parametrize("asked", ["auto", 5])
def test_never_to_the_cpu_unasked(asked):
    """A GPU for not one layer, or for less than asked, is an error without a ladder."""
    params = ModelParams(gpu_layers=asked)
    plan = model_plan(params, given(ModelParams, params, {}))
    with pytest.raises(InsufficientMemoryError, match="on gpu"):
        load(plan, lambda made: None, gpu(0.5))


def test_to_the_cpu_by_the_ladder():
    """The ladder ends on the CPU, and says so."""
    plan = model_plan(ModelParams(), frozenset())
    fitted = load(plan, lambda made: None, gpu(0.5), fit=True)[1]
    assert (0, ["CPU"]) == (
        fitted.plan.model.gpu_layers,
        [s.name for s in fitted.steps],
    )


def test_partly_on_the_gpu_is_told(caplog):
    """If not all layers fit on the GPU, that is a warning with both numbers."""
    with caplog.at_level("WARNING", "llmcore.memory"):
        load(model_plan(ModelParams(), frozenset()), lambda made: None, gpu(5))
    assert ["the model: 5 of 8 layers fit on the GPU"] == caplog.messages


# -- what is free ----------------------------------------------------------------------


def test_free_memory_is_a_budget():
    """Without a budget a choice is made by what the devices have free."""
    devices = [
        Device(name="gpu", kind="gpu", total=500, free=100),
        Device(name="silent", kind="gpu"),
    ]
    limits = {pool.name: pool.limit for pool in free_now(devices).pools}
    assert 100 == limits["gpu"]
    assert "silent" not in limits


def test_layers_need_a_gpu():
    """All layers and the output can go to a GPU, and none without one."""
    devices = [Device(name="gpu", kind="gpu"), Device(name="blas", kind="accelerator")]
    assert 2 == gpu_layers(shape(64, 64), devices)
    assert 0 == gpu_layers(shape(64, 64), devices[1:])
    assert 0 == gpu_layers(None, devices)


def test_a_share_counts_as_its_budget():
    """What a part of a budget is short of is what the budget is short of."""
    budget = Budget(100, headroom=0.0)
    needed = Footprint((Term(device="cpu", purpose="weights", size=101),))
    found = shortages("it", budget.share("a part"))(needed)
    assert ("it", needed) == (found.what, found.footprint)
    assert None is shortages("it", None)(needed)


# -- on the null engine ----------------------------------------------------------------


def test_a_failed_context_is_made_smaller(script, model):
    """When the engine fails for lack of memory, the next step's context is created."""
    script.fail("create_context", times=2, error=InsufficientMemoryError)
    plan = context_plan(ContextParams(), frozenset(), model.info.trained_context)
    context, fitted = create(
        plan, lambda made: model.create_context(made.context), room(10**9), fit=True
    )
    with context:
        assert (512, 2) == (context.params.context_size, len(fitted.steps))


def test_a_failed_context_without_a_ladder_is_the_engines_error(script, model):
    """By default nothing is made smaller: the engine's error is raised as it is."""
    script.fail("create_context", error=InsufficientMemoryError)
    plan = context_plan(ContextParams(), frozenset())
    with pytest.raises(InsufficientMemoryError, match=r"^scripted failure"):
        create(plan, lambda made: model.create_context(made.context), room(10**9))


def test_a_failure_of_another_kind_is_no_lack_of_memory(script, model):
    """An engine that cannot create a context for another reason is not asked again."""
    script.fail("create_context", error=ContextCreationError)
    plan = context_plan(ContextParams(), frozenset())
    with pytest.raises(ContextCreationError, match=r"^scripted failure"):
        create(
            plan, lambda made: model.create_context(made.context), room(10**9), fit=True
        )


def test_a_context_that_never_fits_has_the_whole_account(script, model):
    """If every step fails, the error has them all, and the model is as before."""
    script.fail("create_context", times=3, error=InsufficientMemoryError)
    plan = context_plan(ContextParams(), frozenset(), model.info.trained_context)
    with pytest.raises(InsufficientMemoryError, match="scripted failure") as caught:
        create(
            plan, lambda made: model.create_context(made.context), room(10**9), fit=True
        )
    assert 2 == len(caught.value.account.steps)
    assert "scripted failure" in str(caught.value.__cause__)
    model.create_context().dispose()


def test_a_failed_load_is_tried_with_fewer_layers(script, llama):
    """When a load fails for lack of memory, fewer layers go to the GPU."""
    script.fail("load", times=2, error=InsufficientMemoryError)
    tried = []

    def attempt(plan: Plan) -> llmcore.Model:
        tried.append(plan.model.gpu_layers)
        return llama.load_model()

    model, fitted = load(model_plan(ModelParams(), frozenset()), attempt, gpu(8), True)
    with model:
        assert ["auto", 6, 4] == tried
        assert ["fewer GPU layers"] * 2 == [step.name for step in fitted.steps]


def test_what_the_null_engine_has_not_is_made_to_fit(script, llama):
    """A real shortage of the simulated device is overcome by a smaller context."""
    model = llama.load_model()
    script.capacity_bytes = script.model_bytes + 600 * script.kv_bytes_per_token
    plan = context_plan(ContextParams(), frozenset(), model.info.trained_context)
    context, _ = create(
        plan, lambda made: model.create_context(made.context), room(10**9), fit=True
    )
    with context:
        assert 512 == context.params.context_size


# -- cache types -----------------------------------------------------------------------


def shape(key: int, value: int, *, heads: int = 2, cached: bool = True) -> ModelShape:
    """A model with one layer."""
    layer = LayerShape(heads=2, kv_heads=heads, key_size=key, value_size=value)
    return ModelShape(
        name="tiny", embedding=64, vocabulary=9, layers=(layer,), cached=cached
    )


@pytest.mark.parametrize(
    ("field", "key", "value"), [("kv_type_k", 48, 64), ("kv_type_v", 64, 48)]
)
def test_block_types_need_whole_blocks(field, key, value):
    """A quantised type needs heads of a multiple of 32 values, for keys and values."""
    odd = ContextParams(**{field: "q8_0"})
    with pytest.raises(ParameterError, match=f"{field}='q8_0' .*multiple of 32 .*48"):
        check_cache_types(odd, shape(key, value))
    check_cache_types(odd, shape(64, 64))
    check_cache_types(ContextParams(**{field: "f32"}), shape(key, value))


@pytest.mark.parametrize("without", [{"cached": False}, {"heads": 0}])
def test_no_cache_has_no_type(without):
    """A type for a cache that the model does not keep is an error that names it."""
    model = shape(64, 64, **without)
    with pytest.raises(ParameterError, match="kv_type_v='q8_0' but model 'tiny'"):
        check_cache_types(ContextParams(kv_type_v="q8_0"), model)
    check_cache_types(ContextParams(), model)


def test_a_guess_refuses_nothing():
    """Where the shape is only a guess, the engine has the last word on blocks."""
    rough = evolve(shape(48, 48), from_info=True, layers=())
    check_cache_types(ContextParams(kv_type_k="q8_0"), rough)
    with pytest.raises(ParameterError):
        check_cache_types(ContextParams(kv_type_k="q8_0"), evolve(rough, cached=False))


def test_quantised_values_need_flash_attention():
    """Without flash attention quantised values are refused, and it says what to do."""
    with pytest.raises(ValueError, match="kv_type_v='q8_0' needs flash attention"):
        ContextParams(kv_type_v="q8_0", flash_attention=False)


def test_the_ladder_knows_the_model():
    """A step to a cache that the model cannot have is not allowed."""
    plan = Plan(context=ContextParams(kv_type_v="q8_0"))
    assert [True, False] == [allowed(shape(64, size))(plan) for size in (64, 48)]
    assert allowed(None)(evolve(plan, pinned=frozenset()))
