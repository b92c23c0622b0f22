"""
`Loader`: loads one model, from its source to the first request.
"""

from __future__ import annotations

from collections.abc import Callable

from llmcore.llama import Llama
from llmcore.manager.admission import Admission
from llmcore.manager.direct import Direct
from llmcore.manager.entry import Entry
from llmcore.manager.server import Server
from llmcore.memory import RAM, Footprint, Reservation, Term, weights_of
from llmcore.memory.estimate import estimate
from llmcore.opening import get_llama
from llmcore.sources import header, resolve

Progress = Callable[[float], object]


class Loader:
    """
    Lives as long as one load. The thread that runs it may be any.

    What it needs is reserved by what the header says, before the file itself is fetched
    and before anything is loaded, so that loads at the same time cannot count on the
    same bytes.

    Args:
        entry: What is loaded.

        admission: Makes room.

        own: Given the engine, so that it is disposed with the manager.

        deadline: For room in the budget, by the monotonic clock.

        progress: Called with 0.0 to 1.0; returning False cancels.
    """

    def __init__(
        self,
        entry: Entry,
        admission: Admission,
        own: Callable[[Llama], object],
        deadline: float,
        progress: Progress | None,
    ) -> None:
        self._entry = entry
        self._admission = admission
        self._own = own
        self._deadline = deadline
        self._progress = progress

    def run(self) -> None:
        """
        Load it into the entry, which also has what was made when it fails.

        Raises:
            OperationCancelledError: The load was cancelled.

            LlmcoreError: Whatever else went wrong.
        """
        entry = self._entry
        entry.llama = llama = get_llama(**entry.options.engine, budget=entry.share)
        self._own(llama)
        entry.share.learn(llama.devices())
        with self._reserve(llama) as hold:
            self._load(llama, hold)

    def _reserve(self, llama: Llama) -> Reservation:
        footprint = self._footprint(llama)
        return self._admission.reserve(footprint, self._entry, self._deadline)

    def _footprint(self, llama: Llama) -> Footprint:
        """What it will need, by its header or by what the caller said."""
        entry, options = self._entry, self._entry.options
        if options.reserve is not None:
            why = "reserve, as given"
            term = Term(device=RAM, purpose="other", size=options.reserve, why=why)
            return Footprint((term,))
        if entry.source is None:
            return Footprint()
        looked_up = {k: v for k, v in options.source.items() if k != "force"}
        located = header(entry.source, **looked_up)
        if located.header is None:
            return weights_of(located.size)
        return estimate(
            located.header,
            model=options.model,
            context=options.first_context,
            devices=llama.devices(),
        )

    def _load(self, llama: Llama, hold: Reservation) -> None:
        entry, options = self._entry, self._entry.options
        path = None
        if entry.source is not None:
            path = resolve(
                entry.source, progress=self._share(0.0, 0.5), **options.source
            ).path
        model = llama.load_model(
            path, params=options.model, within=hold, progress=self._share(0.5, 1.0)
        )
        entry.model = model
        params = options.first_context
        context = None if params is None else model.create_context(params, within=hold)
        if options.mode == "direct":
            entry.backing = Direct(model, options.context, context)
        else:
            assert context is not None
            entry.backing = Server(context, options.max_queue)

    def _share(self, start: float, end: float) -> Progress:
        """Progress of a part of the work, as a part of the whole."""

        def report(share: float) -> object:
            entry = self._entry
            entry.progress = start + share * (end - start)
            if entry.cancelled:
                return False
            return None if self._progress is None else self._progress(entry.progress)

        return report
