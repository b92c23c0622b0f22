"""Asking for a GPU among engines that are started to see what they find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmcore.errors import AmbiguousBackendError, BackendUnavailableError
from llmcore.plugins import BackendRequest, Registry
from llmcore.values import Capability

from ...unit.plugins.kit import CPU, GPU, Site, engine_code, plugin_code

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


def test_required_of_all(site: Site, cautious: Cautious) -> None:
    """Without a name, those that lack what is required are passed over."""
    install(site, "one", capabilities={"shift"})
    install(site, "two", capabilities={"logits"})

    assert select(cautious(), require={Capability.LOGITS}) == "two"
    with pytest.raises(BackendUnavailableError, match="one: does not declare 'logits'"):
        select(cautious(), require={Capability.LOGITS, Capability.SHIFT})
