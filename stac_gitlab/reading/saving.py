"""What a catalog of an API needs before pystac can save it: links to its items, and file names."""

from __future__ import annotations

import copy
import itertools
import posixpath
import warnings
from typing import cast

import pystac
from pystac.layout import HrefLayoutStrategy
from pystac.link import Link
from pystac.utils import make_posix_style

from stac_gitlab.errors import IncompleteListingWarning, UnsafePathError
from stac_gitlab.files.paths import NOT_LINKABLE, FileNaming, linkable_path
from stac_gitlab.reading.members import items_endpoint_of
from stac_gitlab.reading.objects import mark_materialized
from stac_gitlab.reading.stac_io import reader_of
from stac_gitlab.redaction import quoted
from stac_gitlab.settings import expect, whole_number


def materialize(catalog: pystac.Catalog, max_items: int | None = None) -> pystac.Catalog:
    """Replace the ``items`` links of a catalog and its children by links to the items themselves.

    ``save``, ``normalize_and_save``, ``full_copy``, ``map_items`` and ``generate_subcatalogs`` work
    on links. After this call they include the items of an API. All items are then in memory.

    Args:
        catalog: A catalog or collection read through a GitLabStacIO. It is changed in place.
        max_items: The maximum number of items over all collections; None for all.

    Returns:
        The same catalog.

    Raises:
        ConfigurationError: If an argument makes no sense.
        STACGitLabError: If a page cannot be read.

    Example:
        >>> import pystac
        >>> from stac_gitlab import materialize
        >>> catalog = pystac.Catalog("local", "Needs no materializing")
        >>> materialize(catalog) is catalog
        True
    """
    expect("catalog", catalog, pystac.Catalog, wanted="a catalog or collection")
    if max_items is not None:
        whole_number("max_items", max_items, least=0)
    _materialize(catalog, max_items)
    parent = catalog.get_single_link(pystac.RelType.PARENT)
    if reader_of(catalog) is not None and (parent is None or not parent.is_resolved()):
        # It was read by its own URL, so its copy does not need a parent.
        catalog.set_parent(None)
        catalog.set_root(catalog)
        for link in catalog.links:
            if link.rel in (pystac.RelType.CHILD, pystac.RelType.ITEM) and link.is_resolved():
                cast("pystac.STACObject", link.target).set_root(catalog)
    return catalog


def _materialize(catalog: pystac.Catalog, max_items: int | None) -> int:
    """Materialize one catalog with its children, and return the number of items."""
    taken = 0
    for child in list(catalog.get_children()):
        left = None if max_items is None else max_items - taken
        taken += _materialize(child, left)
        if not any(link.target is child for link in catalog.get_links("child")):
            catalog.add_link(Link.child(child))
    catalog.remove_links("data")
    if items_endpoint_of(catalog) is None or reader_of(catalog) is None:
        return taken
    left = None if max_items is None else max_items - taken
    items = list(itertools.islice(catalog.get_items(), left))
    linked = {id(link.target) for link in catalog.links if link.rel == "item"}
    catalog.remove_links("items")
    mark_materialized(catalog)
    catalog.add_links([Link.item(item) for item in items if id(item) not in linked])
    return taken + len(items)


def warn_about_unlinked_items(catalog: pystac.Catalog) -> None:
    """Warn if a catalog that is about to be saved has items that nothing links to."""
    if reader_of(catalog) is not None and items_endpoint_of(catalog) is not None:
        warnings.warn(
            f"{quoted(str(catalog.id))} is saved without the items that its server lists. To save "
            "them too, call materialize(catalog) first.",
            IncompleteListingWarning,
            stacklevel=5,
        )


class SafeLayout(HrefLayoutStrategy):
    """A layout whose files all lie below the root, each object in a file of its own.

    What an id holds that cannot be part of a file name is replaced, and a hash keeps it distinct.

    Args:
        layout: The layout that the caller chose.
    """

    def __init__(self, layout: HrefLayoutStrategy) -> None:
        self._layout = layout
        self._naming = FileNaming.usual()
        self._root: str | None = None
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def get_href(
        self, stac_object: pystac.STACObject, parent_dir: str, is_root: bool = False
    ) -> str:
        """Return the href of an object.

        Raises:
            UnsafePathError: If it is outside the root, or belongs to another object.
        """
        named = copy.copy(stac_object)
        named.id = linkable_path(str(stac_object.id))
        href = self._layout.get_href(named, parent_dir, is_root)
        if self._root is None:
            self._root = posixpath.dirname(make_posix_style(href))
        self._take(make_posix_style(href), quoted(str(stac_object.id)))
        return href

    # In pystac, these differ from each other only in the names of their arguments.
    get_catalog_href = get_collection_href = get_item_href = get_href  # type: ignore[assignment]

    def _take(self, href: str, name: str) -> None:
        relative = href.removeprefix(f"{self._root}/")
        parts = relative.split("/")
        if relative == href or {"", ".", ".."} & set(parts) or NOT_LINKABLE.search(relative):
            raise UnsafePathError(
                f"{name} would be saved as {quoted(href)}, which is not a file below "
                f"{quoted(str(self._root))}. Nothing was saved. Choose another layout strategy."
            )
        path = self._naming.identity(relative)
        folders = ["/".join(path.split("/")[:n]) for n in range(1, len(parts))]
        other = self._files.get(path) or self._folders.get(path)
        other = other or next((self._files[f] for f in folders if f in self._files), None)
        if other is not None:
            raise UnsafePathError(
                f"{other} and {name} would be saved as the same file, or one as the folder of the "
                f"other ({quoted(relative)}). Nothing was saved. Choose another layout strategy."
            )
        self._files[path] = name
        self._folders.update(dict.fromkeys(folders, name))
