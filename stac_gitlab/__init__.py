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

from stac_gitlab.__about__ import __version__
from stac_gitlab.download.assets import (
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
from stac_gitlab.reading import pystac_hooks
from stac_gitlab.reading.pystac_hooks import materialize
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.settings import Limits, RetryPolicy

if TYPE_CHECKING:
    from stac_gitlab.api.item_query import ItemQuery
    from stac_gitlab.api.stac_api import STACAPI
    from stac_gitlab.api.transactions import BulkReport, BulkResult
    from stac_gitlab.download.downloader import STACDownloader
    from stac_gitlab.download.progress import Progress
    from stac_gitlab.download.report import AssetResult, BatchReport, DownloadReport

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
    "Progress",
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
    "STACAPI": "api.stac_api",
    "ItemQuery": "api.item_query",
    "BulkReport": "api.transactions",
    "BulkResult": "api.transactions",
    "STACDownloader": "download.downloader",
    "Progress": "download.progress",
    "AssetResult": "download.report",
    "BatchReport": "download.report",
    "DownloadReport": "download.report",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


logging.getLogger(__name__).addHandler(logging.NullHandler())
pystac_hooks.install()
