"""Asking for a GPU: what is chosen, what is refused, and that nothing falls back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import llmcore
from llmcore.backends.null.backend import NullBackend
from llmcore.errors import (
    AmbiguousBackendError,
    BackendUnavailableError,
    CapabilityError,
    ParameterError,
)
from llmcore.plugins import BackendRequest, Registry
from llmcore.testing import null_backend
from llmcore.values import Capability, Device

from .kit import CPU, GPU, Site, engine_code, plugin_code

Cautious = Callable[[], Registry]


def install(
    site: Site, name: str, devices: str = CPU, distribution: str = "", **info: Any
) -> None:
    """Install a backend that finds some devices."""
    site.write(f"engine_{name}", engine_code(devices=devices))
    info.setdefault("capabilities", {Capability.GPU.value})
    code = plugin_code(name, f"engine_{name}:Engine", **info)
    site.install(distribution or f"llmcore-{name}", code, plugin=f"{name}_of_test")


def select(registry: Registry, **request: Any) -> str:
    """The name of what is chosen."""
    return registry.select(BackendRequest(**request)).name


def test_the_one_asked_for(site: Site, cautious: Cautious) -> None:
    """A way to a GPU chooses the build that has it, and no other GPU will do."""
    install(site, "plain")
    install(site, "one", GPU.format("cuda"))
    install(site, "two", GPU.format("vulkan"))
    registry = cautious()

    assert select(registry, gpu="cuda") == "one"
    assert select(registry, gpu="vulkan") == "two"
    reasons = {v.name: v.reason for v in registry.explain(BackendRequest(gpu="cuda"))}
    assert reasons["plain"].startswith("it finds no cuda device, only cpu 'CPU'")
    assert reasons["two"].startswith("it finds no cuda device, only vulkan 'X0'")


def test_never_another(site: Site, cautious: Cautious) -> None:
    """A GPU that nobody has is an error that tells what each of them has."""
    install(site, "plain")
    install(site, "one", GPU.format("cuda"))

    with pytest.raises(BackendUnavailableError) as caught:
        select(cautious(), gpu="metal")

    assert "gpu='metal'" in str(caught.value)
    assert "plain: it finds no metal device, only cpu 'CPU'" in str(caught.value)
    assert "one: it finds no metal device, only cuda 'X0'" in str(caught.value)


def test_never_another_by_name(site: Site, cautious: Cautious) -> None:
    """A backend that was named is refused, too, if it has not that GPU."""
    install(site, "one", GPU.format("cuda"))

    assert select(cautious(), backend="one", gpu="cuda") == "one"
    with pytest.raises(
        BackendUnavailableError, match=r"finds no rocm.*install a build for rocm"
    ):
        select(cautious(), backend="one", gpu="rocm")


def test_undeclared(site: Site, cautious: Cautious) -> None:
    """A backend that does not declare GPUs is not asked for one, whatever it finds."""
    install(site, "one", GPU.format("cuda"), capabilities=set())

    for backend in ("auto", "one"):
        with pytest.raises(BackendUnavailableError, match="does not declare 'gpu'"):
            select(cautious(), backend=backend, gpu="cuda")


@pytest.mark.parametrize("api", ["cuda", ""])
def test_any(site: Site, cautious: Cautious, api: str) -> None:
    """``"auto"`` takes the build that finds a GPU, if it does not say which, too."""
    install(site, "a_plain")
    install(site, "one", GPU.format(api))
    registry = cautious()

    assert select(registry) == "one"
    [why] = [v.reason for v in registry.explain(BackendRequest()) if v.chosen]
    assert why == "the only one that finds a GPU"


def test_any_preferred(site: Site, cautious: Cautious) -> None:
    """Of several with a GPU the preferred one is taken, else none."""
    install(site, "one", GPU.format("cuda"))
    install(site, "two", GPU.format("vulkan"))
    with pytest.raises(AmbiguousBackendError):
        select(cautious())

    install(site, "cyllama", GPU.format("vulkan"), "llmcore-cyllama")

    assert select(cautious()) == "cyllama"


def test_none(site: Site, cautious: Cautious) -> None:
    """Without a GPU the choice does not look at GPUs."""
    install(site, "one", GPU.format("cuda"))
    install(site, "cyllama", CPU, "llmcore-cyllama")

    assert select(cautious()) == "one"
    assert select(cautious(), gpu=False) == "cyllama"


def test_accelerator(site: Site, cautious: Cautious) -> None:
    """An accelerator that helps the CPU is no GPU."""
    install(site, "one", GPU.format("").replace("'gpu'", "'accelerator'"))

    assert select(cautious()) == "one"
    with pytest.raises(BackendUnavailableError):
        select(cautious(), gpu="cuda")


@pytest.mark.parametrize("gpu", ["cud", True, None, 0, "CUDA"])
def test_unknown(gpu: Any) -> None:
    """What is no way to a GPU is refused, with those there are."""
    with pytest.raises(ValueError, match="gpu must be one of 'auto', 'cuda'"):
        llmcore.get_llama("null", gpu=gpu)


# -- the instance ---------------------------------------------------------------------


class Pretender(NullBackend):
    """The null engine with a GPU."""

    api = "cuda"

    def devices(self):
        return [Device(name="X0", kind="gpu", api=self.api)]


def test_shown() -> None:
    """An instance says what it came to."""
    with llmcore.get_llama("null") as llama:
        assert llama.gpu is False
        assert repr(llama).endswith("LIVE gpu=False>")
    with llmcore.get_llama(Pretender(), gpu="cuda") as llama:
        assert llama.gpu == "cuda"
        assert repr(llama).endswith("LIVE gpu='cuda'>")
    assert repr(llama).endswith("DISPOSED gpu='cuda'>")


def test_found_out_at_the_start() -> None:
    """An engine that has not the GPU when it runs here is refused and closed."""
    engine = Pretender()
    with pytest.raises(BackendUnavailableError, match="finds no vulkan device"):
        llmcore.get_llama(engine, gpu="vulkan")
    assert {} == engine.ledger.live


def test_required() -> None:
    """What is required is asked before anything is loaded."""
    engine = null_backend()
    with pytest.raises(CapabilityError, match="capability 'gpu'"):
        llmcore.get_llama(engine, require={Capability.GPU})
    assert {} == engine.ledger.live
    with pytest.raises(CapabilityError, match=r"backend 'null'.*'gpu'"):
        llmcore.get_llama("null", require=[Capability.LOGITS, Capability.GPU])
    with llmcore.get_llama("null", require=Capability.STATE_IO) as llama:
        llama.require(Capability.STATE_IO, Capability.LOGITS)
        with pytest.raises(CapabilityError, match=r"llama#.*'gpu'"):
            llama.require(Capability.STATE_IO, Capability.GPU)


def test_required_of_all(site: Site, cautious: Cautious) -> None:
    """Without a name, those that lack what is required are passed over."""
    install(site, "one", capabilities={"shift"})
    install(site, "two", capabilities={"logits"})

    assert select(cautious(), require={Capability.LOGITS}) == "two"
    with pytest.raises(BackendUnavailableError, match="one: does not declare 'logits'"):
        select(cautious(), require={Capability.LOGITS, Capability.SHIFT})


def test_unknown_capability() -> None:
    """What is no capability is refused."""
    with pytest.raises(ValueError, match="'gup' is not a valid Capability"):
        llmcore.get_llama("null", require=["gup"])


# -- layers ---------------------------------------------------------------------------


class Keeper(Pretender):
    """Keeps the parameters of the last load."""

    @property
    def info(self):
        return llmcore.values.evolve(super().info, capabilities=frozenset(Capability))

    def load_model(self, path, params, progress):
        self.params = params
        return super().load_model(path, params, progress)


def test_off_the_gpu() -> None:
    """With ``gpu=False`` no layer goes to a GPU, and asking for one is a conflict."""
    engine = Keeper()
    with llmcore.get_llama(engine, gpu=False) as llama:
        with llama.load_model():
            assert engine.params.gpu_layers == 0
        with llama.load_model(gpu_layers=0):
            assert engine.params.gpu_layers == 0
        with pytest.raises(ParameterError, match=r"gpu_layers=3 but .* gpu=False"):
            llama.load_model(gpu_layers=3)


def test_on_the_gpu() -> None:
    """Else the number of layers is the engine's, or the caller's."""
    engine = Keeper()
    with llmcore.get_llama(engine, gpu="cuda") as llama:
        with llama.load_model():
            assert engine.params.gpu_layers == "auto"
        with llama.load_model(gpu_layers=3):
            assert engine.params.gpu_layers == 3


def test_layers_undeclared() -> None:
    """Layers for a GPU on a backend that declares none are refused, not ignored."""
    with (
        llmcore.get_llama(null_backend()) as llama,
        pytest.raises(CapabilityError, match="'gpu'"),
    ):
        llama.load_model(gpu_layers=3)
