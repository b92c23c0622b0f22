"""A model for the conformance suite, which cannot know our format."""

from pathlib import Path


def write_model(path: Path) -> None:
    """Write a model that goes round in circles, so that no answer ends early."""
    path.write_bytes(b"markov\n" + 9 * b"once a king had three sons, and ")
