"""
`Loader`: loads one model, from its source to the first request.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from llmcore.gguf_header import GGUFHeader
from llmcore.llama import Llama
from llmcore.manager.admission import Admission
from llmcore.manager.direct import Direct
from llmcore.manager.entry import Entry
from llmcore.manager.server import Server
from llmcore.memory import RAM, Footprint, Reservation, Term, weights_of
from llmcore.memory.choosing import allowed, gpu_layers, shortages
from llmcore.memory.estimate import estimate, shape_of
from llmcore.memory.fitting import retrying
from llmcore.memory.ladder import LADDER, EvictIdle, Plan, Room
from llmcore.opening import get_llama
from llmcore.sources import Located, header, resolve

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
        entry, options = self._entry, self._entry.options
        llama = get_llama(**options.engine, budget=entry.share)
        entry.llama = self._llama = llama
        self._own(llama)
        entry.share.learn(llama.devices())
        plan = Plan(
            model=options.model,
            context=options.first_context or options.context,
            pinned=options.pinned_fields,
        )
        if self._admission.policy == "fit":
            self._load_what_fits(plan)
        else:
            needed = self._needed(plan)
            with self._admission.reserve(needed, entry, self._deadline) as hold:
                self._load(plan, hold)

    # -- what it needs -----------------------------------------------------------------

    @cached_property
    def _located(self) -> Located | None:
        options = self._entry.options
        if self._entry.source is None or options.reserve is not None:
            return None
        looked_up = {k: v for k, v in options.source.items() if k != "force"}
        return header(self._entry.source, **looked_up)

    @property
    def _header(self) -> GGUFHeader | None:
        return None if self._located is None else self._located.header

    def _needed(self, plan: Plan) -> Footprint:
        """What a plan needs, by the header or by what the caller said."""
        options = self._entry.options
        if options.reserve is not None:
            why = "reserve, as given"
            term = Term(device=RAM, purpose="other", size=options.reserve, why=why)
            return Footprint((term,))
        if self._located is None:
            return Footprint()
        if self._header is None:
            return weights_of(self._located.size)
        return estimate(
            self._header,
            model=plan.model,
            context=None if options.first_context is None else plan.context,
            devices=self._llama.devices(),
        )

    # -- doing it ----------------------------------------------------------------------

    def _load_what_fits(self, plan: Plan) -> None:
        """Load it with less, if memory is short."""
        entry = self._entry
        shape = None if self._header is None else shape_of(self._header)
        room = Room(
            estimate=self._needed,
            shortage=shortages(entry.label, entry.share),
            allows=allowed(shape),
            layers=gpu_layers(shape, self._llama.devices()),
        )
        ladder = (EvictIdle(self._admission.evict_idle), *LADDER)
        _, fitted = retrying(plan, self._attempt, room, ladder, what=entry.label)
        entry.given_up = tuple(taken.sentence for taken in fitted.steps)

    def _attempt(self, plan: Plan) -> None:
        with self._entry.share.reserve(self._needed(plan), self._entry.label) as hold:
            try:
                self._load(plan, hold)
            except BaseException:
                if self._entry.model is not None:
                    self._entry.model.dispose()
                raise

    def _load(self, plan: Plan, hold: Reservation) -> None:
        entry, options = self._entry, self._entry.options
        path = None
        if entry.source is not None:
            path = resolve(
                entry.source, progress=self._share(0.0, 0.5), **options.source
            ).path
        entry.model = model = self._llama.load_model(
            path, params=plan.model, within=hold, progress=self._share(0.5, 1.0)
        )
        context = None
        if options.first_context is not None:
            context = model.create_context(plan.context, within=hold)
        if options.mode == "direct":
            entry.backing = Direct(model, plan.context, context)
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
