"""A GGUF file in memory: settings with their types checked, weights as float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Array = NDArray[np.float32]


class InvalidModelError(Exception):
    """What is wrong with a model, in words; becomes a `ModelLoadError`."""


class Settings:
    """
    The metadata of a file, with words for what it says about its architecture.

    Args:
        metadata: All of it, by full name.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata
        self.architecture: str = self._value("general.architecture", str, None)

    def text(self, key: str, default: str | None = None) -> str:
        """A text of the whole file, such as ``general.name``."""
        found: str = self._value(key, str, default)
        return found

    def flag(self, key: str, default: bool) -> bool:
        """A yes or no of the whole file."""
        found: bool = self._value(key, bool, default)
        return found

    def array(self, key: str) -> list[Any]:
        """A list of the whole file; empty if it is missing."""
        found: list[Any] = self._value(key, list, [])
        return found

    def integer(self, name: str, default: int | None = None) -> int:
        """A number of 0 or more; of the architecture, as all that follow."""
        found: int = self._value(f"{self.architecture}.{name}", int, default)
        if found < 0:
            raise InvalidModelError(f"{name} is {found}, must not be negative")
        return found

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number, whole or not."""
        found = self._value(f"{self.architecture}.{name}", (float, int), default)
        if not np.isfinite(found):
            raise InvalidModelError(f"{name} is {found}, must be finite")
        return float(found)

    def choice(self, name: str, default: str) -> str:
        """A word."""
        return self.text(f"{self.architecture}.{name}", default)

    def _value(self, key: str, kind: Any, default: Any) -> Any:
        found = self.metadata.get(key, default)
        if found is None:
            raise InvalidModelError(f"{key} is missing")
        wrong = isinstance(found, bool) and kind is not bool
        if wrong or not isinstance(found, kind):
            raise InvalidModelError(f"{key} is {found!r:.60}, which is of no use there")
        return found


@frozen
class Linear:
    """``y = x W^T + b``, where W has shape (outputs, inputs) as in the file."""

    weight: Array
    bias: Array | None = None

    def __call__(self, x: Array) -> Array:
        y: Array = x @ self.weight.T
        if self.bias is not None:
            y += self.bias
        return y


class Weights:
    """
    The tensors of a file by name; each shape is checked when a network takes it.

    Shapes are those of NumPy, slowest dimension first: the file's, reversed.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays
        self._taken: set[str] = set()

    def take(self, name: str, *shape: int) -> Array:
        """The tensor of that name and shape."""
        found = self.find(name, *shape)
        if found is None:
            raise InvalidModelError(f"the tensor {name!r} is missing")
        return found

    def find(self, name: str, *shape: int) -> Array | None:
        """The same, or None if there is no such tensor."""
        found = self.arrays.get(name)
        if found is None:
            return None
        if found.shape != shape:
            raise InvalidModelError(
                f"the tensor {name!r} has shape {found.shape}, not {shape}"
            )
        self._taken.add(name)
        return found

    def linear(self, name: str, outputs: int, inputs: int) -> Linear:
        """A weight with its bias, if it has one."""
        return Linear(
            self.take(f"{name}.weight", outputs, inputs),
            self.find(f"{name}.bias", outputs),
        )

    def check_all_taken(self) -> None:
        """A network that leaves a tensor out computes something else than was meant."""
        left = sorted(self.arrays.keys() - self._taken)
        if left:
            raise InvalidModelError(
                f"the tensor {left[0]!r} (and {len(left) - 1} more) is not known to "
                "this architecture here"
            )


def read(
    path: Path, report: Callable[[float], None], *, check: bool
) -> tuple[Settings, Weights]:
    """
    Read a file and dequantise all its tensors.

    Args:
        report: Told the share of the bytes that is read; what it raises ends the read.

        check: Refuse numbers that are not finite.

    Raises:
        InvalidModelError: With the reason in words.
    """
    try:
        reader = gguf.GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
    except Exception as error:  # it trusts the file, and may raise anything
        raise InvalidModelError(f"the gguf package cannot read it: {error}") from error
    if metadata.get("split.count", 1) > 1:
        raise InvalidModelError("a model in several files: join them with gguf-split")
    settings = Settings(metadata)
    return settings, Weights(_arrays(reader.tensors, report, check))


def _arrays(
    tensors: Iterable[Any], report: Callable[[float], None], check: bool
) -> dict[str, Array]:
    tensors = list(tensors)
    total = sum(int(tensor.n_bytes) for tensor in tensors)
    arrays, done = dict[str, Array](), 0
    for tensor in tensors:
        arrays[tensor.name] = _dequantised(tensor)
        if check and not np.isfinite(arrays[tensor.name]).all():
            raise InvalidModelError(f"the tensor {tensor.name!r} has NaN or infinity")
        done += int(tensor.n_bytes)
        report(min(done / total, 0.99))
    return arrays


def _dequantised(tensor: Any) -> Array:
    try:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        # A plain array of our own: of a file that shrinks, the map would be cut too.
        copied: Array = np.array(values, np.float32, subok=False, order="C")
    except Exception as error:
        raise InvalidModelError(
            f"the gguf package cannot dequantise the tensor {tensor.name!r} of type "
            f"{tensor.tensor_type.name}: {error}"
        ) from error
    return copied
