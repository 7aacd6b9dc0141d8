"""Limits: how much of what a server sends is taken, in one value that users can set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from stac_gitlab.arguments import whole_number
from stac_gitlab.errors import ConfigurationError

__all__ = ["Limits"]

_MOST_NESTING = 200


@dataclass(frozen=True)
class Limits:
    """Bounds on what servers may do. Immutable; use :meth:`replace` for a variation.

    Whatever goes beyond one of them is an error that names it. The size of a document is an
    argument of :class:`~stac_gitlab.GitLabStacIO` itself, and times are those of a
    :class:`~stac_gitlab.RetryPolicy`.

    Attributes:
        redirects: How many redirects in a row are followed.
        nesting: How deeply the objects and lists of a document may be nested; 200 at the most. STAC
            needs about ten levels. pystac copies and writes documents with functions that call
            themselves, several times for each level, and Python stops them at a thousand calls.
        empty_pages: How many pages in a row may list nothing.
        file_bytes: Bytes that one downloaded file may have, decompressed; None for as many as come.

    Raises:
        ConfigurationError: If a value makes no sense.
    """

    redirects: int = 10
    nesting: int = 128
    empty_pages: int = 1000
    file_bytes: int | None = None

    def __post_init__(self) -> None:
        whole_number("redirects", self.redirects, least=0)
        if whole_number("nesting", self.nesting, least=1) > _MOST_NESTING:
            raise ConfigurationError(
                f"nesting={self.nesting}: pystac bears {_MOST_NESTING} levels at the most."
            )
        whole_number("empty_pages", self.empty_pages, least=0)
        if self.file_bytes is not None:
            whole_number("file_bytes", self.file_bytes, least=0)

    def replace(self, **changes: object) -> Limits:
        """Return a copy with some attributes changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # any field
