"""The engines of `odd`, imported at first use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import odd
from attrs import evolve

from llmcore.backends.null import model as null_model
from llmcore.backends.null.backend import NullBackend
from llmcore.errors import ModelLoadError
from llmcore.model_file import read_gguf_header
from llmcore.testing import NullScript
from llmcore.values import CacheKind, Capability, ModelInfo


def bare() -> NullBackend:
    return NullBackend(NullScript(capabilities=odd.BARE.capabilities))


def samples_only() -> NullBackend:
    return NullBackend(NullScript(capabilities=odd.SAMPLES_ONLY.capabilities))


def slow_to_free() -> NullBackend:
    return NullBackend(NullScript(release_delay=True))


def one_at_a_time() -> NullBackend:
    return NullBackend(NullScript(exclusion="process"))


def forgetful() -> NullBackend:
    return NullBackend(NullScript(cache_kind=CacheKind.RECURRENT))


def short_sighted() -> NullBackend:
    return NullBackend(NullScript(cache_kind=CacheKind.SLIDING_WINDOW, window=64))


def one_per_model() -> NullBackend:
    return NullBackend(NullScript(exclusion="model"))


class Reshaped(NullBackend):
    """Changes what it loads."""

    def change_model(self, model, path):
        """May set attributes of a model that was loaded."""

    def change_context(self, context):
        """May set attributes of a context that was created."""

    def load_model(self, path, params, progress):
        model = super().load_model(path, params, progress)
        create = model.create_context

        def create_context(wanted):
            context = create(wanted)
            self.change_context(context)
            return context

        model.create_context = create_context
        self.change_model(model, path)
        return model


def stubborn() -> NullBackend:
    class Stubborn(Reshaped):
        def change_context(self, context):
            remove = context.remove

            def refuse(sequence, start, end=None):
                everything = start == 0 and end is None
                return everything and remove(sequence, start, end)

            context.remove = refuse

    return Stubborn(NullScript(cache_kind=CacheKind.SLIDING_WINDOW, window=64))


def generous() -> NullBackend:
    class Generous(Reshaped):
        def change_model(self, model, path):
            create = model.create_context
            model.create_context = lambda wanted: create(
                evolve(wanted, context_size=-(-wanted.context_size // 96) * 96)
            )

    return Generous()


def taciturn() -> NullBackend:
    class Taciturn(Reshaped):
        def change_model(self, model, path):
            model._info = ModelInfo(
                architecture="",
                vocab_size=model.info.vocab_size,
                embedding_size=model.info.embedding_size,
                capabilities=model.info.capabilities,
            )

    return Taciturn()


def talkative() -> NullBackend:
    class Talkative(NullBackend):
        def load_model(self, path, params, progress):
            shares = (n / 1000 for n in range(1001))

            def tell(share):
                return all(progress(own) for own in shares)

            return super().load_model(path, params, tell)

    return Talkative()


def elsewhere() -> NullBackend:
    class Elsewhere(Reshaped):
        def change_context(self, context):
            worker = ThreadPoolExecutor(1)
            for name in ("decode", "logits", "sample", "remove", "copy", "clear"):
                setattr(context, name, there(worker, getattr(context, name)))
            close = context.close

            def close_both():
                there(worker, close)()
                worker.shutdown()

            context.close = close_both

    def there(worker, call: Callable) -> Callable:
        return lambda *args, **options: worker.submit(call, *args, **options).result()

    return Elsewhere()


def reads_files() -> NullBackend:
    class ReadsFiles(NullBackend):
        def load_model(self, path, params, progress):
            if not path.is_file() or not path.read_bytes().startswith(b"odd"):
                raise ModelLoadError(path, "it does not begin with 'odd'")
            return super().load_model(path, params, progress)

    return ReadsFiles()


def embeds_elsewhere() -> NullBackend:
    class EmbedsElsewhere(Reshaped):
        def change_model(self, model, path):
            embeds = read_gguf_header(path).architecture == "bert"
            kind = CacheKind.NONE if embeds else CacheKind.FULL
            info = null_model.describe(NullScript(cache_kind=kind))
            without = set() if embeds else {Capability.EMBEDDING}
            model._info = evolve(info, capabilities=info.capabilities - without)

    return EmbedsElsewhere()


def reads_mamba() -> NullBackend:
    class ReadsMamba(NullBackend):
        def load_model(self, path, params, progress):
            if read_gguf_header(path).architecture != "mamba":
                raise ModelLoadError(path, "it is no Mamba")
            return super().load_model(path, params, progress)

    return ReadsMamba(NullScript(cache_kind=CacheKind.RECURRENT))


def older() -> NullBackend:
    return NullBackend()
