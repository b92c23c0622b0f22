"""One module for each architecture, under the name that GGUF files have for it."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from llmcore.backends.reference.gguf_file import InvalidModelError, Settings, Weights
from llmcore.backends.reference.network import Network


def build(settings: Settings, weights: Weights) -> Network:
    """
    The network of a file.

    Raises:
        InvalidModelError: The architecture is not known, or does not fit the file.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if settings.architecture not in known:
        raise InvalidModelError(
            f"the reference backend knows no architecture {settings.architecture!r}, "
            f"only {', '.join(known)}: use the llama_cpp backend"
        )
    module = import_module(f"{__name__}.{settings.architecture}")
    network: Network = module.Architecture(settings, weights)
    weights.check_all_taken()
    return network
