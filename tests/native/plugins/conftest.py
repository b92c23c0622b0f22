"""A place to install plugins into whose engines are started in processes."""

from __future__ import annotations

from ...unit.plugins.conftest import cautious, registry, site

__all__ = ["cautious", "registry", "site"]
