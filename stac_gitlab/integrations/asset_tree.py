"""The assets of an item as files in folders: their keys are paths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pystac

from stac_gitlab.download.assets import HasAssets, check_asset
from stac_gitlab.download.source import Locator, Source, redacted_url, self_href
from stac_gitlab.errors import AssetNotFoundError
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import quoted

_NAMES_OF_THE_FOLDER = frozenset({"", ".", ".."})


class AssetTree:
    """The assets of one item or collection.

    Args:
        owner: The item or collection.
        session: Knows the dialect of its server.
    """

    def __init__(self, owner: HasAssets, session: GitLabSession) -> None:
        self._owner = owner
        self._locator = Locator(session)
        # By folder, without a slash at its end: the keys and folders in it.
        self.folders: dict[str, dict[str, None]] = {"": {}}
        for key in owner.assets:
            parts = key.split("/")
            if not _NAMES_OF_THE_FOLDER.isdisjoint(parts):
                # It can be opened by its key. As a path in a listing it would lead elsewhere.
                continue
            for depth in range(len(parts)):
                folder = "/".join(parts[:depth])
                self.folders.setdefault(folder, {})["/".join(parts[: depth + 1])] = None

    def kind(self, key: str) -> str:
        """Return whether a key is a ``"file"`` or a ``"directory"``.

        Raises:
            AssetNotFoundError: If there is nothing under that key.
        """
        asset = self._owner.assets.get(key)
        if asset is not None and not _is_store(asset):
            return "file"
        if asset is not None or key in self.folders:
            return "directory"
        if self._store_of(key) is not None:
            return "file"
        raise AssetNotFoundError(f"{self._name()} has no asset {quoted(key)}.")

    def source(self, key: str) -> Source:
        """Return where a file comes from.

        Raises:
            AssetNotFoundError: If there is no file under that key.
            DownloadError: If it cannot be read from there.
        """
        if self.kind(key) == "directory":
            raise AssetNotFoundError(
                f"{self._name()}: {quoted(key)} is a folder of assets, not one. Name one of them."
            )
        store = None if key in self._owner.assets else self._store_of(key)
        asset_key = key if store is None else store
        asset = self._owner.assets[asset_key]
        check_asset(asset_key, asset)
        source, path = self._locator.locate(self._owner, asset_key, asset)
        if path is not None:
            raise AssetNotFoundError(f"{self._name()}: {quoted(key)} is a local file.")
        if store is None:
            return source
        parts = urlsplit(source.url)
        inside = quote(key[len(store) + 1 :])
        url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{inside}"))
        return replace(source, url=url, key=key, size=None, checksum=None, media_type=None)

    def info(self, key: str) -> dict[str, Any]:
        """Return what the metadata say about a file or folder: its type, size and media type."""
        kind = self.kind(key)
        asset = self._owner.assets.get(key)
        if kind == "directory" or asset is None:
            return {"size": 0 if kind == "directory" else None, "type": kind}
        source = self.source(key)
        info = {"size": source.size, "type": kind, "media_type": source.media_type}
        if source.checksum is not None:
            info["checksum"] = str(source.checksum)
        return info

    def names_in(self, folder: str) -> list[str]:
        """Return the keys and folders in a folder.

        Raises:
            AssetNotFoundError: If there is no such folder, or nobody knows what it contains.
        """
        if folder in self.folders:
            return list(self.folders[folder])
        if self.kind(folder) == "file":
            return [folder]
        href = redacted_url(self._owner.assets[folder].href)
        raise AssetNotFoundError(
            f"{self._name()}: {quoted(folder)} is a folder at {href}, which has no listing. Files "
            "in it can be opened by name."
        )

    def _store_of(self, key: str) -> str | None:
        """Return the key of the asset that is a folder of its server and contains `key`."""
        parts = key.split("/")
        if not _NAMES_OF_THE_FOLDER.isdisjoint(parts):
            return None
        for depth in range(len(parts) - 1, 0, -1):
            folder = "/".join(parts[:depth])
            asset = self._owner.assets.get(folder)
            if asset is not None:
                return folder if _is_store(asset) else None
        return None

    def _name(self) -> str:
        return redacted_url(self_href(self._owner)) or quoted(str(self._owner))


def _is_store(asset: pystac.Asset) -> bool:
    """Return whether an asset is not a file, but a Zarr folder at its server."""
    href = urlsplit(str(asset.href)).path
    media_type = asset.media_type if isinstance(asset.media_type, str) else ""
    return href.endswith((".zarr", ".zarr/")) or (
        "zarr" in media_type and not href.endswith((".zip", ".json"))
    )
