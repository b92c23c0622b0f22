"""The numbers that a header gives under its architecture, checked as they are read."""

from __future__ import annotations

from attrs import frozen

from llmcore.errors import ModelLoadError
from llmcore.gguf_header import GGUFArray, GGUFHeader, Metadata

_MOST = 2**31


@frozen
class HeaderValues:
    """
    A view of the metadata of one header; keys are without the architecture's name.

    Every method raises `ModelLoadError` for a value that is not of its kind.
    """

    header: GGUFHeader

    def get(self, key: str) -> Metadata | None:
        """The value as it is; None if the key is missing."""
        return self.header.metadata.get(f"{self.header.architecture}.{key}")

    def integer(self, key: str, default: int = 0) -> int:
        """A number of 0 or more."""
        value = self.get(key)
        return default if value is None else self._checked(key, value)

    def per_layer(self, key: str, count: int, default: int = 0) -> tuple[int, ...]:
        """A number for each of ``count`` layers: an array of them, or one for all."""
        value = self.get(key)
        if value is None:
            return (default,) * count
        if not isinstance(value, tuple | GGUFArray):
            return (self._checked(key, value),) * count
        if isinstance(value, GGUFArray) or len(value) < count:
            length = value.count if isinstance(value, GGUFArray) else len(value)
            raise self.invalid(key, f"has {length} elements for {count} layers")
        return tuple(self._checked(key, item) for item in value[:count])

    def _checked(self, key: str, value: object) -> int:
        if isinstance(value, int) and 0 <= value < _MOST:
            return int(value)
        raise self.invalid(key, f"is {value!r}, must be an integer of 0 or more")

    def invalid(self, key: str, problem: str) -> ModelLoadError:
        """The error for a value that makes no sense."""
        name = self.header.metadata.get("general.name", "")
        key = f"{self.header.architecture}.{key}"
        return ModelLoadError(name, f"the metadata value {key!r} {problem}")
