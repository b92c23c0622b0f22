"""Mutants of loading.md: plugins and loading."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import pytest
from attrs import evolve

from llmcore import Llama, Resource
from llmcore.lifecycle import resource, tree
from llmcore.plugins import Registry
from llmcore.sources import loading
from mutants import mutant

Patch = pytest.MonkeyPatch


@mutant(kills="plugin.light-import")
def imports_the_engine_at_once(patch: Patch) -> None:
    """Looking a backend up imports its factory."""
    right = Registry.get

    def get(self, name):
        found = right(self, name)
        importlib.import_module(found.info.factory.partition(":")[0])
        return found

    patch.setattr(Registry, "get", get)


@mutant(kills="plugin.info-static")
def tells_a_new_story(patch: Patch) -> None:
    """The summary counts how often it was asked for."""
    right, count = Registry.get, itertools.count()

    def get(self, name):
        found = right(self, name)
        return evolve(found, info=evolve(found.info, summary=f"asked {next(count)}"))

    patch.setattr(Registry, "get", get)


@mutant(kills="load.missing-file")
def leaves_missing_files_to_the_engine(patch: Patch) -> None:
    """Nobody looks whether the file is there."""
    check_only(patch, lambda path: path.exists())


@mutant(kills="load.bad-file")
def leaves_bad_files_to_the_engine(patch: Patch) -> None:
    """Nobody looks into the file."""
    check_only(patch, lambda path: not path.exists())


def check_only(patch, wanted):
    """Check only some model files."""
    from llmcore import model_file

    right = model_file.check_model_file

    def check(path, formats=("gguf",)):
        return right(path, formats) if wanted(Path(path)) else None

    patch.setattr(model_file, "check_model_file", check)


@mutant(kills="load.fail-clean")
def a_failed_load_is_listed(patch: Patch) -> None:
    """A model that could not be loaded stays in the tree."""
    from llmcore.errors import ModelLoadError

    load, left = Llama.load_model, []

    def load_model(self, path=None, **options):
        try:
            return load(self, path, **options)
        except ModelLoadError:
            left.append(Resource("model", parent=self))
            raise

    patch.setattr(Llama, "load_model", load_model)


@mutant(kills="load.independent-instances")
def instances_share_a_state(patch: Patch):
    """Closing one instance spoils another."""
    from mutants.broken import SharedBackend

    return SharedBackend


@mutant(kills="load.independent-models")
def models_share_a_state(patch: Patch):
    """Closing one model spoils another."""
    from mutants.broken import SharedModels

    return SharedModels


@mutant(kills="load.progress")
def progress_falls(patch: Patch):
    """The engine reports 0.7 and then 0.5."""
    from mutants.broken import ProgressBackend

    return ProgressBackend


@mutant(kills="load.cancel")
def too_late_to_cancel(patch: Patch):
    """The engine does not listen at 1.0."""
    from mutants.broken import HastyBackend

    return HastyBackend


@mutant(kills="load.progress-error")
def errors_become_cancellations(patch: Patch) -> None:
    """What the callback raised is lost."""
    patch.setattr(loading.Load, "reraise", lambda self: None)


@mutant(kills="load.disposed-during")
def a_model_on_a_disposed_instance(patch: Patch) -> None:
    """Nobody looks whether the parent still lives when a child is attached."""

    def attach(node):
        with tree.TREE:
            if node.parent is not None:
                node.parent.dependants[node.number] = node
            tree.NODES[node.number] = node

    patch.setattr(resource, "attach", attach)
