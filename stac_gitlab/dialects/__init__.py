"""What only one system does.

Code outside this package asks a :class:`Dialect` and imports no system's module.
"""

from collections.abc import Mapping

from stac_gitlab.auth import Origin
from stac_gitlab.dialects.base import Dialect
from stac_gitlab.dialects.gitlab import GitLab, GitLFS
from stac_gitlab.dialects.sharinghub import SharingHub, api_url

__all__ = ["Dialect", "api_url", "new_dialects"]


def new_dialects(paths: Mapping[Origin, str]) -> tuple[Dialect, ...]:
    """Return the dialects in the order in which they are tried; the last one fits every URL.

    Args:
        paths: The paths of servers that are below one, by origin.
    """
    return GitLFS(), GitLab(paths), SharingHub(), Dialect()
