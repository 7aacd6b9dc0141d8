"""What only one system does.

Code outside this package asks a :class:`Dialect` and imports no system's module.
"""

from stac_gitlab.dialects.base import Dialect
from stac_gitlab.dialects.gitlab import GitLab, GitLFS
from stac_gitlab.dialects.sharinghub import SharingHub, api_url

__all__ = ["Dialect", "api_url", "new_dialects"]


def new_dialects() -> tuple[Dialect, ...]:
    """Return the dialects in the order in which they are tried; the last one fits every URL."""
    return GitLFS(), GitLab(), SharingHub(), Dialect()
