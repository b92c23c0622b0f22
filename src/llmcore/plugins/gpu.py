"""The ways to a GPU, and which of them the devices of a backend offer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from llmcore.values import Device

Gpu = Literal["auto", "cuda", "metal", "vulkan", "rocm", False]
"""What `llmcore.get_llama` can be asked for."""

GPUS = ("auto", "cuda", "metal", "vulkan", "rocm", False)


def gpus_of(devices: Iterable[Device]) -> list[Device]:
    """Those that are GPUs; an accelerator such as BLAS only helps the CPU."""
    return [device for device in devices if device.kind in {"gpu", "integrated-gpu"}]


def way_to(device: Device) -> str:
    """Such as ``"cuda"``; its kind if its backend does not say."""
    return device.api or device.kind


def obstacle_to(gpu: Gpu | str, devices: Iterable[Device]) -> str:
    """Why what was asked for cannot be had with these devices; empty if it can."""
    devices = list(devices)
    wanted = gpu not in ("auto", False)
    if wanted and gpu not in {device.api for device in gpus_of(devices)}:
        found = names_of(devices)
        return f"it finds no {gpu} device, only {found}: install a build for {gpu}"
    return ""


def names_of(devices: Iterable[Device]) -> str:
    """The devices for people, in one line."""
    names = [
        f"{way_to(device)} {device.name!r} {device.description}".rstrip()
        for device in devices
    ]
    return ", ".join(names) or "no device"
