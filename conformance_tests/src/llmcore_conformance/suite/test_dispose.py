"""The life of resources: lifecycle.md."""

from __future__ import annotations

from llmcore import Llama, Model, Sequence
from llmcore.testing import ViolationKind
from llmcore_conformance import clause
from llmcore_conformance.checks import assert_none
from llmcore_conformance.ledger import SeamLedger


@clause("dispose.idempotent")
def test_a_second_dispose_has_no_effect(
    llama: Llama, model: Model, sequence: Sequence, ledger: SeamLedger
) -> None:
    """Each resource can be disposed twice, and its memory is freed once."""
    for resource in (sequence, sequence.context, model, llama):
        resource.dispose()
        resource.dispose()
    assert_none(
        ledger,
        ViolationKind.DOUBLE_FREE,
        cause="the teardown runs again on the second dispose()",
    )
    closes = ("close_context", "close_model", "close_backend")
    assert ledger.order(*closes) == list(closes), "not each was freed exactly once"
