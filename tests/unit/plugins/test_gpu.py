"""Asking for a GPU: what is refused, and what an instance then does."""

from __future__ import annotations

from typing import Any

import pytest

import llmcore
from llmcore.backends.null.backend import NullBackend
from llmcore.errors import BackendUnavailableError, CapabilityError, ParameterError
from llmcore.testing import null_backend
from llmcore.values import Capability, Device


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
