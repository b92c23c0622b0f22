"""
What a manager accepted to do: while it lasts, its model stays.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from llmcore.errors import CapabilityError, DisposedError
from llmcore.manager.entry import Entry
from llmcore.manager.keeper import Keeper
from llmcore.manager.table import not_ready
from llmcore.stream import Stream


class Request:
    """
    Lives from its acceptance until it is over, and holds a lease on its model.

    Args:
        keeper: Is told when it is over.

        entry: The model.

    Raises:
        DisposedError: The model is on its way out.
    """

    def __init__(self, keeper: Keeper, entry: Entry) -> None:
        model, self.backing = entry.model, entry.backing
        if model is None:
            raise not_ready(entry)
        self._lease = model.lease()
        self._keeper = keeper
        self._entry = entry
        entry.requests.add(self)
        entry.accepted_requests += 1

    backing: Any

    def timeout(self, queue: float | None) -> float:
        """Seconds that it waits for a free sequence."""
        return self._entry.options.request_timeout if queue is None else queue

    def until_over(self, stream: Stream) -> Stream:
        """Last as long as a stream."""
        stream.when_over(self.close)
        return stream

    def close(self) -> None:
        """It is over; twice is fine. Neither waits nor raises."""
        self._entry.requests.discard(self)
        self._lease.release()
        self._keeper.request_over(self._entry)


@contextmanager
def accepted(keeper: Keeper, id: Hashable, capability: str) -> Iterator[Request]:
    """
    Accept a request: a block which ends it if it fails.

    Raises:
        NotLoadedError: There is no such model, or it is not ready.

        CapabilityError: The model is not there for that.
    """
    entry = keeper.table.ready(id)
    if capability not in entry.options.capabilities:
        loaded_to = " and ".join(sorted(entry.options.capabilities))
        raise CapabilityError(
            f"{entry.label} was loaded to {loaded_to}, not to {capability}: load it "
            f"with capabilities=[{capability!r}]"
        )
    try:
        request = Request(keeper, entry)
    except DisposedError:
        raise not_ready(entry) from None
    try:
        # An unload first refuses requests and then looks for those that run; here it
        # is the other way round, so one of the two sees the other.
        keeper.table.ready(id)
        yield request
    except BaseException:
        request.close()
        raise
