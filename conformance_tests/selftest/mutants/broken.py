"""Broken backends that mutants are made of: each the null backend with one defect."""

from __future__ import annotations

from typing import ClassVar

from llmcore.backends.null.backend import NullBackend
from llmcore.errors import BackendError


class CachingBackend(NullBackend):
    """Keeps the last model, and gives it out again when it was closed."""

    def load_model(self, path, params, progress):
        kept = getattr(self, "kept", None)
        model = super().load_model(path, params, progress)
        if kept is not None and kept.handle.closing:
            model.tokenize = _dead
            model.create_context = _dead
        self.kept = model
        return model


class SharedBackend(NullBackend):
    """Closing one instance spoils those that live."""

    living: ClassVar[list[SharedBackend]] = []

    def __init__(self):
        super().__init__()
        self.spoilt = False
        self.living.append(self)

    def load_model(self, path, params, progress):
        model = super().load_model(path, params, progress)
        if self.spoilt:
            model.tokenize = _dead
        return model

    def close(self):
        super().close()
        self.living.remove(self)
        for other in self.living:
            other.spoilt = True


class SharedModels(NullBackend):
    """Closing one model spoils its twin."""

    def load_model(self, path, params, progress):
        model = super().load_model(path, params, progress)
        models = self.__dict__.setdefault("models", [])
        models.append(model)
        close = model.close

        def close_all():
            close()
            models.remove(model)
            for other in models:
                other.create_context = _dead

        model.close = close_all
        return model


class ProgressBackend(NullBackend):
    """Tells a progress of its own making, or does not listen to the answer."""

    shares = (0.0, 0.7, 0.5, 1.0)
    listens = True

    def load_model(self, path, params, progress):
        def tell(share):
            if share == 0.5 and self.shares:
                return all([progress(own) for own in self.shares])
            return True if self.shares else (progress(share) or share == 1.0)

        return super().load_model(path, params, tell)


class HastyBackend(ProgressBackend):
    """Does not listen when it has loaded everything."""

    shares = ()


class SharedScratch(NullBackend):
    """All contexts of a model leave their results in one place."""

    def load_model(self, path, params, progress):
        model = super().load_model(path, params, progress)
        create, shared = model.create_context, {}

        def create_context(wanted):
            context = create(wanted)
            decode, row = context.decode, context._row

            def decode_here(batch):
                decode(batch)
                shared["rows"] = dict(context._rows)

            context.decode = decode_here

            def shared_row(op, n):
                rows = shared["rows"]
                return rows.get(n) or next(iter(rows.values()), None) or row(op, n)

            context._row = shared_row
            return context

        model.create_context = create_context
        return model


def _dead(*args, **options):
    raise BackendError("the engine shares what was closed")
