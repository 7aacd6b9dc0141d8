"""Stock pystac against authenticated STAC: SharingHub, private STAC APIs and GitLab repositories.

::

    from pystac import Catalog, StacIO
    from stac_gitlab import GitLabStacIO

    StacIO.set_default(GitLabStacIO(token))
    for item in Catalog.from_file(url).get_items(recursive=True):
        ...
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stac_gitlab import pystac_hooks
from stac_gitlab.__about__ import __version__
from stac_gitlab.assets import (
    asset_roles,
    assets_with_role,
    data_assets,
    filter_assets,
    group_by_role,
    has_any_role,
)
from stac_gitlab.errors import (
    AssetNotFoundError,
    AuthenticationError,
    ChecksumMismatchError,
    ConfigurationError,
    ConflictError,
    DownloadError,
    HTTPStatusError,
    IncompleteDownloadError,
    IncompleteListingWarning,
    InsecureTransportWarning,
    InvalidRequestError,
    InvalidResponseError,
    LFSPointerError,
    NetworkError,
    NotFoundError,
    NothingToDownloadWarning,
    NotSTACError,
    PermissionDeniedError,
    RateLimitError,
    RemoteWriteError,
    RequestTimeoutError,
    ServerError,
    STACGitLabError,
    STACGitLabWarning,
    UndeclaredExtensionWarning,
    UnreadableItemWarning,
    UnsafePathError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.limits import Limits
from stac_gitlab.pystac_hooks import materialize
from stac_gitlab.retry import RetryPolicy
from stac_gitlab.stac_io import GitLabStacIO

if TYPE_CHECKING:
    from stac_gitlab.api import STACAPI
    from stac_gitlab.downloader import STACDownloader
    from stac_gitlab.query import ItemQuery
    from stac_gitlab.report import AssetResult, BatchReport, DownloadReport
    from stac_gitlab.transactions import BulkReport, BulkResult

__all__ = [
    "STACAPI",
    "AssetNotFoundError",
    "AssetResult",
    "AuthenticationError",
    "BatchReport",
    "BulkReport",
    "BulkResult",
    "ChecksumMismatchError",
    "ConfigurationError",
    "ConflictError",
    "DownloadError",
    "DownloadReport",
    "GitLabStacIO",
    "HTTPStatusError",
    "IncompleteDownloadError",
    "IncompleteListingWarning",
    "InsecureTransportWarning",
    "InvalidRequestError",
    "InvalidResponseError",
    "ItemQuery",
    "LFSPointerError",
    "Limits",
    "NetworkError",
    "NotFoundError",
    "NotSTACError",
    "NothingToDownloadWarning",
    "PermissionDeniedError",
    "RateLimitError",
    "RemoteWriteError",
    "RequestTimeoutError",
    "RetryPolicy",
    "STACDownloader",
    "STACGitLabError",
    "STACGitLabWarning",
    "ServerError",
    "UndeclaredExtensionWarning",
    "UnreadableItemWarning",
    "UnsafePathError",
    "UnverifiedDownloadWarning",
    "__version__",
    "asset_roles",
    "assets_with_role",
    "data_assets",
    "filter_assets",
    "group_by_role",
    "has_any_role",
    "materialize",
]

# What those who only read do not need, and the module that is imported when it is asked for.
_LATER = {
    "STACAPI": "api",
    "STACDownloader": "downloader",
    "ItemQuery": "query",
    "AssetResult": "report",
    "BatchReport": "report",
    "DownloadReport": "report",
    "BulkReport": "transactions",
    "BulkResult": "transactions",
}


def __getattr__(name: str) -> Any:
    if name in _LATER.values():
        return import_module(f"{__name__}.{name}")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


logging.getLogger(__name__).addHandler(logging.NullHandler())
pystac_hooks.install()
