"""Stock pystac with authenticated STAC: SharingHub, private STAC APIs and GitLab repositories.

::

    from pystac import Catalog, StacIO
    from stac_gitlab import GitLabStacIO

    StacIO.set_default(GitLabStacIO(token))
    for item in Catalog.from_file(url).get_items(recursive=True):
        ...

PYTEST_DONT_REWRITE: the package has a pytest plugin, but holds no tests.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stac_gitlab.__about__ import __version__

if TYPE_CHECKING:
    from stac_gitlab.api.item_query import ItemQuery
    from stac_gitlab.api.stac_api import STACAPI, CollectionLike, ItemLike
    from stac_gitlab.api.transactions import BulkReport, BulkResult, BulkStatus, OnConflict
    from stac_gitlab.auth import TokenSource
    from stac_gitlab.catalogs.describe import RemoteFiles, describe_assets
    from stac_gitlab.catalogs.mirror import mirror
    from stac_gitlab.catalogs.mirror_run import MirrorReport
    from stac_gitlab.catalogs.publish import PublishReport, publish
    from stac_gitlab.download.assets import (
        HasAssets,
        Names,
        asset_roles,
        assets_with_role,
        data_assets,
        filter_assets,
        group_by_role,
        has_any_role,
    )
    from stac_gitlab.download.downloader import STACDownloader
    from stac_gitlab.download.local_copy import OnError
    from stac_gitlab.download.options import DownloadOptions
    from stac_gitlab.download.progress import Progress, ProgressOption
    from stac_gitlab.download.report import AssetResult, AssetStatus, BatchReport, DownloadReport
    from stac_gitlab.download.source import Verify
    from stac_gitlab.download.task import Overwrite
    from stac_gitlab.errors import (
        AssetNotFoundError,
        AuthenticationError,
        ChecksumMismatchError,
        ConfigurationError,
        ConflictError,
        DownloadError,
        DownloadHTTPError,
        HTTPStatusError,
        ImplicitTokenWarning,
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
        OfflineError,
        OfflineWarning,
        PartialItemWarning,
        PermissionDeniedError,
        RateLimitError,
        RemoteWriteError,
        RequestTimeoutError,
        SecretInFileWarning,
        ServerError,
        STACGitLabError,
        STACGitLabWarning,
        UndeclaredExtensionWarning,
        UnreadableItemWarning,
        UnsafePathError,
        UnverifiedDownloadWarning,
    )
    from stac_gitlab.http.document_cache import DocumentCache
    from stac_gitlab.integrations.gdal import RasterioOpener, gdal_env
    from stac_gitlab.integrations.login import login
    from stac_gitlab.integrations.preview import Preview, preview
    from stac_gitlab.reading.saving import materialize
    from stac_gitlab.reading.stac_io import GitLabStacIO
    from stac_gitlab.settings import Limits, RetryPolicy

__all__ = [
    "STACAPI",
    "AssetNotFoundError",
    "AssetResult",
    "AssetStatus",
    "AuthenticationError",
    "BatchReport",
    "BulkReport",
    "BulkResult",
    "BulkStatus",
    "ChecksumMismatchError",
    "CollectionLike",
    "ConfigurationError",
    "ConflictError",
    "DocumentCache",
    "DownloadError",
    "DownloadHTTPError",
    "DownloadOptions",
    "DownloadReport",
    "GitLabStacIO",
    "HTTPStatusError",
    "HasAssets",
    "ImplicitTokenWarning",
    "IncompleteDownloadError",
    "IncompleteListingWarning",
    "InsecureTransportWarning",
    "InvalidRequestError",
    "InvalidResponseError",
    "ItemLike",
    "ItemQuery",
    "LFSPointerError",
    "Limits",
    "MirrorReport",
    "Names",
    "NetworkError",
    "NotFoundError",
    "NotSTACError",
    "NothingToDownloadWarning",
    "OfflineError",
    "OfflineWarning",
    "OnConflict",
    "OnError",
    "Overwrite",
    "PartialItemWarning",
    "PermissionDeniedError",
    "Preview",
    "Progress",
    "ProgressOption",
    "PublishReport",
    "RasterioOpener",
    "RateLimitError",
    "RemoteFiles",
    "RemoteWriteError",
    "RequestTimeoutError",
    "RetryPolicy",
    "STACDownloader",
    "STACGitLabError",
    "STACGitLabWarning",
    "SecretInFileWarning",
    "ServerError",
    "TokenSource",
    "UndeclaredExtensionWarning",
    "UnreadableItemWarning",
    "UnsafePathError",
    "UnverifiedDownloadWarning",
    "Verify",
    "__version__",
    "asset_roles",
    "assets_with_role",
    "data_assets",
    "describe_assets",
    "filter_assets",
    "gdal_env",
    "group_by_role",
    "has_any_role",
    "login",
    "materialize",
    "mirror",
    "preview",
    "publish",
]

# Each module is imported when one of its names is first used: `stac-gitlab --help` and the shell's
# completion need none of them.
_LAZY_MODULES = {
    "api.item_query": ("ItemQuery",),
    "api.stac_api": (
        "CollectionLike",
        "ItemLike",
        "STACAPI",
    ),
    "api.transactions": (
        "BulkReport",
        "BulkResult",
        "BulkStatus",
        "OnConflict",
    ),
    "auth": ("TokenSource",),
    "catalogs.describe": (
        "RemoteFiles",
        "describe_assets",
    ),
    "catalogs.mirror": ("mirror",),
    "catalogs.mirror_run": ("MirrorReport",),
    "catalogs.publish": (
        "PublishReport",
        "publish",
    ),
    "download.assets": (
        "HasAssets",
        "Names",
        "asset_roles",
        "assets_with_role",
        "data_assets",
        "filter_assets",
        "group_by_role",
        "has_any_role",
    ),
    "download.downloader": ("STACDownloader",),
    "download.local_copy": ("OnError",),
    "download.options": ("DownloadOptions",),
    "download.progress": (
        "Progress",
        "ProgressOption",
    ),
    "download.report": (
        "AssetResult",
        "AssetStatus",
        "BatchReport",
        "DownloadReport",
    ),
    "download.source": ("Verify",),
    "download.task": ("Overwrite",),
    "integrations.gdal": ("RasterioOpener", "gdal_env"),
    "integrations.login": ("login",),
    "integrations.preview": ("Preview", "preview"),
    "errors": (
        "AssetNotFoundError",
        "AuthenticationError",
        "ChecksumMismatchError",
        "ConfigurationError",
        "ConflictError",
        "DownloadError",
        "DownloadHTTPError",
        "HTTPStatusError",
        "ImplicitTokenWarning",
        "IncompleteDownloadError",
        "IncompleteListingWarning",
        "InsecureTransportWarning",
        "InvalidRequestError",
        "InvalidResponseError",
        "LFSPointerError",
        "NetworkError",
        "NotFoundError",
        "NotSTACError",
        "NothingToDownloadWarning",
        "OfflineError",
        "OfflineWarning",
        "PartialItemWarning",
        "PermissionDeniedError",
        "RateLimitError",
        "RemoteWriteError",
        "RequestTimeoutError",
        "STACGitLabError",
        "STACGitLabWarning",
        "SecretInFileWarning",
        "ServerError",
        "UndeclaredExtensionWarning",
        "UnreadableItemWarning",
        "UnsafePathError",
        "UnverifiedDownloadWarning",
    ),
    "http.document_cache": ("DocumentCache",),
    "reading.saving": ("materialize",),
    "reading.stac_io": ("GitLabStacIO",),
    "settings": (
        "Limits",
        "RetryPolicy",
    ),
}
_MODULE_OF = {name: module for module, names in _LAZY_MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULE_OF[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})


logging.getLogger(__name__).addHandler(logging.NullHandler())
