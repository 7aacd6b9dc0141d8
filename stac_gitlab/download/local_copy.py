"""STAC documents beside downloaded files: items, and a catalog of them, which need no server."""

from __future__ import annotations

import json
import os
import stat
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import pystac

from stac_gitlab.download.source import self_href
from stac_gitlab.errors import DownloadError, IncompleteListingWarning
from stac_gitlab.files.partial_file import (
    leftovers_for,
    leftovers_in,
    remove_leftovers,
    replace_file,
)
from stac_gitlab.files.paths import contained_path, is_local, linkable_path, relative_path
from stac_gitlab.redaction import quoted, redact, redact_text

OnError = Literal["keep", "remove"]
"""What becomes of a failed asset in the item file: it keeps its remote href, or is left out."""

_Object = TypeVar("_Object", bound=pystac.STACObject)

ToJSON = Callable[[dict[str, Any]], str]
CATALOG_NAME = "catalog.json"
_NO_COLLECTION = "no-collection"
STRUCTURE = frozenset(
    {"self", "root", "parent", "child", "item", "items", "data", "search", "conformance"}
)
"""The relations that lead to the server, which a copy does not need, or to what is not copied."""
MEDIA_TYPES = {"child": "application/json", "item": "application/geo+json"}
"""The media types of what a catalog links to, by relation."""


class ItemFile:
    """The file of an item whose assets are downloaded.

    Args:
        path: The path of the file below the folder.
        folder: The output folder, as an absolute path.
        to_json: Returns a document as JSON.
        links: Links to add, by relation. A link of the item with the same relation is replaced.

    Raises:
        DownloadError: If it cannot be written, or exists and ``overwrite="error"``.
    """

    def __init__(
        self,
        item: pystac.Item,
        path: str,
        folder: Path,
        to_json: ToJSON,
        *,
        on_error: OnError,
        overwrite: str,
        links: Mapping[str, str] | None = None,
    ) -> None:
        try:
            target = contained_path(folder, path)
            exists = target.exists()
        except OSError as error:
            raise DownloadError(
                f"{quoted(path)} cannot be written to {str(folder)!r}: {error.strerror or error}."
            ) from error
        if exists and overwrite == "error":
            raise DownloadError(
                f"{str(target)!r} exists already. Remove it, or choose another overwrite=."
            )
        self.path = path
        self._item = item
        self._folder = folder
        self._to_json = to_json
        self._on_error = on_error
        self._links = links or {}
        self._is_kept = exists and overwrite == "never"

    def write(self, files: Mapping[str, Path], failed: Collection[str]) -> None:
        """Write the item with relative hrefs of its files, and absolute hrefs of other assets.

        Raises:
            DownloadError: If the file cannot be written.
        """
        if self._is_kept:
            return
        target = self._folder.joinpath(*self.path.split("/"))

        def document() -> dict[str, Any]:
            copy = without_structure(self._item, self._links)
            start = Path(os.path.realpath(target.parent))
            for key, asset in list(copy.assets.items()):
                if key in files:
                    asset.href = _href(files[key].resolve(), start)
                elif key in failed and self._on_error == "remove":
                    del copy.assets[key]
                else:
                    asset.href = self._item.assets[key].get_absolute_href() or asset.href
            add_links(copy, self._links, self._item.get_self_href())
            return copy.to_dict(include_self_link=False, transform_hrefs=False)

        write_document(self._folder, self.path, "the item", document, self._to_json)


class LocalCatalog:
    """The files of many items in one folder, of their collections, and of a catalog of all.

    What an earlier run listed stays listed if its file still exists.

    Args:
        folder: The output folder, as an absolute path.
        stac_io: Reads collections, and returns documents as JSON.
        reserve: Keeps paths free of assets.

    Attributes:
        errors: Errors of items whose file cannot be written.

    Raises:
        DownloadError: If a file that is not a catalog has its name.
    """

    def __init__(
        self,
        folder: Path,
        stac_io: pystac.StacIO,
        *,
        on_error: OnError,
        overwrite: str,
        reserve: Callable[[Mapping[str, str]], None],
    ) -> None:
        self.errors: list[DownloadError] = []
        self._folder = folder
        self._stac_io = stac_io
        self._on_error = on_error
        self._overwrite = overwrite
        self._reserve = reserve
        # By the path of a catalog or collection: the paths of what it lists.
        self._listed: dict[str, list[str]] = defaultdict(list)
        # The paths of the collections by id, or that of the catalog for those without a file.
        self._parents: dict[str, str] = {}
        self._collections: dict[str, pystac.Collection] = {}
        reserve({"the catalog": CATALOG_NAME})
        self._existing = read_existing(folder, CATALOG_NAME)

    def add(self, item: pystac.Item) -> ItemFile | None:
        """Return the file for an item, or None if it can have none."""
        try:
            return self._add(item)
        except DownloadError as error:
            self.errors.append(error)
            return None

    def _add(self, item: pystac.Item) -> ItemFile:
        collection_id = str(item.collection_id or "")
        if collection_id not in self._parents:
            self._parents[collection_id] = CATALOG_NAME
            self._parents[collection_id] = self._add_collection(item, collection_id)
        parent = self._parents[collection_id]
        name = linkable_path(f"{collection_id or _NO_COLLECTION}/{item.id}")
        path = relative_path(f"{name}.json")
        self._reserve({f"the file of {item.id}": path})
        self._listed[parent].append(path)
        links = {"root": CATALOG_NAME, "parent": parent}
        if parent != CATALOG_NAME:
            links["collection"] = parent
        return ItemFile(
            item,
            path,
            self._folder,
            self._stac_io.json_dumps,
            on_error=self._on_error,
            overwrite=self._overwrite,
            links={rel: relative_href(target, path) for rel, target in links.items()},
        )

    def _add_collection(self, item: pystac.Item, collection_id: str) -> str:
        """Return the path of the collection of an item, or of the catalog if it has none."""
        if not collection_id:
            return CATALOG_NAME
        path = relative_path(linkable_path(f"{collection_id}/collection.json"))
        collection = None
        try:
            collection = self._collection_of(item)
        except Exception as error:  # noqa: BLE001  # of any reader that pystac calls
            warnings.warn(
                f"The collection {quoted(collection_id)} cannot be read, so it is not saved. Its "
                f"items are listed in {CATALOG_NAME}: {redact(str(error))}",
                IncompleteListingWarning,
                stacklevel=2,
            )
        if collection is None:
            return CATALOG_NAME
        self._reserve({f"the collection {collection_id}": path})
        self._collections[path] = collection
        self._listed[CATALOG_NAME].append(path)
        return path

    def _collection_of(self, item: pystac.Item) -> pystac.Collection | None:
        link = item.get_single_link("collection")
        if link is None:
            return None
        if isinstance(link.target, pystac.Collection):
            return link.target
        href = link.get_absolute_href()
        # Only a local item may name a local file.
        if href is None or (is_local(href) and not is_local(self_href(item) or "urn:")):
            return None
        # item.get_collection() would read it without the token for members of an ItemCollection.
        return pystac.Collection.from_file(href, stac_io=self._stac_io)

    def save(self) -> bool:
        """Write the collections and the catalog; return whether the catalog could be written."""
        try:
            for path, collection in self._collections.items():
                self._save(path, "the collection", collection, read_existing(self._folder, path))
            name = self._folder.name or "downloads"
            catalog = pystac.Catalog(name, "Items that were downloaded with their files.")
            self._save(CATALOG_NAME, "the catalog", catalog, self._existing)
        except DownloadError as error:
            self.errors.append(error)
            return False
        return True

    def _save(
        self, path: str, name: str, source: pystac.Catalog, existing: Mapping[str, Any]
    ) -> None:
        def document() -> dict[str, Any]:
            links = {"root": relative_href(CATALOG_NAME, path)}
            if path != CATALOG_NAME:
                links["parent"] = links["root"]
            copy = without_structure(source, links)
            add_links(copy, links, source.get_self_href())
            for key, asset in getattr(copy, "assets", {}).items():
                asset.href = source.assets[key].get_absolute_href() or asset.href  # type: ignore[attr-defined]  # a collection
            saved = copy.to_dict(include_self_link=False, transform_hrefs=False)
            if path == CATALOG_NAME:
                saved |= {key: existing[key] for key in ("id", "description") if key in existing}
            hrefs = {
                rel: list(_listed_hrefs(existing, rel, self._folder / path)) for rel in MEDIA_TYPES
            }
            for listed in self._listed[path]:
                rel = "child" if listed in self._collections else "item"
                if self._folder.joinpath(*listed.split("/")).is_file():
                    hrefs[rel].append(relative_href(listed, path))
            for rel, media_type in MEDIA_TYPES.items():
                for href in dict.fromkeys(hrefs[rel]):
                    saved["links"].append({"rel": rel, "href": href, "type": media_type})
            return saved

        target = self._folder / path
        remove_leftovers(leftovers_for(target, leftovers_in(target.parent)))
        write_document(self._folder, path, name, document, self._stac_io.json_dumps)


def without_structure(source: _Object, replaced: Collection[str]) -> _Object:
    """Return a copy with absolute links, without those to the server's catalogs and items."""
    copy: _Object = source.clone()  # type: ignore[assignment]  # pystac types it as STACObject
    links = [link for link in copy.links if link.rel not in STRUCTURE | set(replaced)]
    for link in links:
        link.target = link.get_absolute_href() or link.target
    copy.links = links
    return copy


def add_links(copy: pystac.STACObject, links: Mapping[str, str], origin: str | None) -> None:
    """Add links by their relations, and one to the original object."""
    for rel, href in links.items():
        copy.links.append(pystac.Link(rel, href, media_type="application/json"))
    if origin:
        copy.links.append(pystac.Link("derived_from", origin, media_type="application/geo+json"))


def relative_href(path: str, document: str) -> str:
    """Return the href of a file in a document; both are paths below the output folder."""
    return _href(Path("/", path), Path("/", document).parent)


def _href(path: Path, start: Path) -> str:
    href = os.path.relpath(path, start).replace(os.sep, "/")
    return href if href.startswith("../") else f"./{href}"


def read_existing(folder: Path, path: str) -> dict[str, Any]:
    """Return the catalog or collection that an earlier run wrote, or an empty document."""
    file = folder.joinpath(*path.split("/"))
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("type") not in ("Catalog", "Collection"):
        raise DownloadError(
            f"{str(file)!r} exists already, and is not a STAC catalog. Move it away, or choose "
            "another folder."
        )
    return document


def _listed_hrefs(document: Mapping[str, Any], rel: str, file: Path) -> Iterator[str]:
    """Yield the relative hrefs of a document's links that lead to existing files beside it."""
    links = document.get("links")
    for link in links if isinstance(links, list) else ():
        href = link.get("href") if isinstance(link, dict) and link.get("rel") == rel else None
        if isinstance(href, str) and href.startswith("./") and (file.parent / href).is_file():
            yield href


def replace_if_changed(target: Path, content: bytes) -> None:
    """Write a file, unless it is there with this content."""
    # A symbolic link is replaced, as for the assets: it may lead anywhere.
    if not _has_content(target, content):
        replace_file(target, content)


def write_document(
    folder: Path,
    path: str,
    name: str,
    document: Callable[[], dict[str, Any]],
    to_json: ToJSON,
    *,
    write: Callable[[Path, bytes], None] = replace_if_changed,
) -> int:
    """Write a document, and return its size in bytes. Errors call it `name`."""
    failed = f"{name} cannot be written to {str(folder / path)!r}"
    try:
        content = redact_text(to_json(document())).encode("utf-8")
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        # pystac raises any of these for values that JSON cannot hold.
        raise DownloadError(f"{failed} as JSON: {redact(str(error))}.") from error
    try:
        write(contained_path(folder, path), content)
    except OSError as error:
        raise DownloadError(f"{failed}: {error.strerror or error}.") from error
    return len(content)


def _has_content(target: Path, content: bytes) -> bool:
    """Return whether a file is there, not a link to one, and has this content."""
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        return False
    is_file = stat.S_ISREG(status.st_mode) and status.st_size == len(content)
    return is_file and target.read_bytes() == content
