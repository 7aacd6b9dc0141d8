"""Which assets of an item or collection: by role, media type and key.

Plain functions over anything with ``.assets``. They return assets by key, in the item's order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

import pystac

from stac_gitlab.errors import ConfigurationError, DownloadError
from stac_gitlab.redaction import quoted

Names = str | Iterable[str] | None
"""One name, several names, or None for no condition."""


class HasAssets(Protocol):
    """An Item or Collection."""

    assets: dict[str, pystac.Asset]


def asset_roles(obj: HasAssets | pystac.Asset) -> list[str]:
    """Return the roles of an asset, or of all assets of an item, each once, in their order.

    Example:
        >>> import pystac
        >>> from stac_gitlab import asset_roles
        >>> asset_roles(pystac.Asset("lakes.csv", roles=["data"]))
        ['data']
    """
    assets = [obj] if isinstance(obj, pystac.Asset) else _assets_of(obj).values()
    return list(dict.fromkeys(role for asset in assets for role in _roles(asset)))


def has_any_role(obj: HasAssets | pystac.Asset, roles: Names) -> bool:
    """Return whether an asset, or any asset of an item, has one of `roles`."""
    return not set(_names(roles, "roles") or ()).isdisjoint(asset_roles(obj))


def filter_assets(
    obj: HasAssets,
    *,
    roles: Names = None,
    exclude_roles: Names = None,
    media_types: Names = None,
    include: Names = None,
    exclude: Names = None,
    match: Literal["any", "all"] = "any",
) -> dict[str, pystac.Asset]:
    """Return the assets that meet all conditions.

    Args:
        obj: An item or collection.
        roles: Roles that an asset must have; None selects all assets, even those without a role.
        exclude_roles: Roles that it must not have.
        media_types: Media types, such as ``"text/csv"`` or ``"image/*"``. Parameters are compared
            only if they are given: ``"image/tiff"`` also matches
            ``image/tiff; application=geotiff``.
        include: Globs, one of which must match the asset key. ``*`` also matches slashes. A key
            always matches itself, even if it contains ``[`` or ``?``.
        exclude: Globs, none of which may match the asset key.
        match: Whether an asset needs ``"any"`` of `roles` or ``"all"`` of them.

    Raises:
        ConfigurationError: If an argument is neither a name nor a collection of names.

    Example:
        >>> import pystac
        >>> from stac_gitlab import filter_assets
        >>> collection = pystac.Collection("lakes", "Lakes", extent=None)
        >>> collection.add_asset("data/lakes.csv", pystac.Asset("lakes.csv", roles=["data"]))
        >>> collection.add_asset("README.md", pystac.Asset("README.md", roles=["metadata"]))
        >>> list(filter_assets(collection, include="data/*"))
        ['data/lakes.csv']
    """
    if match not in ("any", "all"):
        raise ConfigurationError(f"match={match!r}: choose 'any' or 'all'.")
    wanted_roles = _names(roles, "roles")
    unwanted_roles = _names(exclude_roles, "exclude_roles")
    wanted_types = _names(media_types, "media_types")
    wanted_keys = _names(include, "include")
    unwanted_keys = _names(exclude, "exclude")

    def is_selected(key: str, asset: pystac.Asset) -> bool:
        own = set(_roles(asset))
        if wanted_roles is not None:
            found = own.intersection(wanted_roles)
            if len(found) < (len(set(wanted_roles)) if match == "all" else 1):
                return False
        return (
            own.isdisjoint(unwanted_roles or ())
            and (wanted_types is None or any(_is_of_type(asset, t) for t in wanted_types))
            and (wanted_keys is None or _matches(key, wanted_keys))
            and not _matches(key, unwanted_keys or ())
        )

    return {key: asset for key, asset in _assets_of(obj).items() if is_selected(key, asset)}


def assets_with_role(obj: HasAssets, role: str) -> dict[str, pystac.Asset]:
    """Return the assets with a role."""
    return filter_assets(obj, roles=role)


def data_assets(obj: HasAssets) -> dict[str, pystac.Asset]:
    """Return the assets with the role ``data``: data sets, and the weights of models."""
    return assets_with_role(obj, "data")


def group_by_role(obj: HasAssets) -> dict[str, dict[str, pystac.Asset]]:
    """Return the assets of each role. An asset with several roles is in several groups."""
    return {role: assets_with_role(obj, role) for role in asset_roles(obj)}


def check_asset(key: Any, asset: Any) -> None:
    """Check the types of what a download reads, since code can build any asset.

    Raises:
        DownloadError: If the key is not text, or the asset is not a ``pystac.Asset`` with an href.
    """
    href = getattr(asset, "href", None)
    fields = getattr(asset, "extra_fields", None)
    if not isinstance(key, str):
        problem = f"its key is not text, but {type(key).__name__}"
    elif not isinstance(asset, pystac.Asset):
        problem = f"it is not a pystac.Asset, but {type(asset).__name__}"
    elif not isinstance(href, str):
        problem = f"its href is not text, but {type(href).__name__}"
    elif not isinstance(fields, Mapping):
        problem = f"its extra_fields are not a dictionary, but {type(fields).__name__}"
    else:
        return
    raise DownloadError(f"{quoted(str(key))}: this asset cannot be downloaded: {problem}.")


def _assets_of(obj: HasAssets) -> Mapping[str, pystac.Asset]:
    assets = getattr(obj, "assets", None)
    if not isinstance(assets, Mapping):
        raise ConfigurationError(f"An item or collection is needed, not {type(obj).__name__}.")
    return assets


def _names(names: Names, argument: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str):
        return (names,)
    # A mapping is iterable too, but its keys alone are not what the caller meant.
    is_collection = isinstance(names, Iterable) and not isinstance(names, Mapping)
    found = tuple(names) if is_collection else None
    if found is None or not all(isinstance(name, str) for name in found):
        raise ConfigurationError(f"{argument}={names!r}: pass a name or a list of names.")
    return found


def _roles(asset: pystac.Asset) -> list[str]:
    roles: Any = getattr(asset, "roles", None)
    if isinstance(roles, str):
        # Some documents contain "roles": "data".
        return [roles]
    if not isinstance(roles, Iterable) or isinstance(roles, Mapping):
        return []
    return [role for role in roles if isinstance(role, str)]


def _matches(key: object, globs: tuple[str, ...]) -> bool:
    return key in globs or any(fnmatchcase(str(key), glob) for glob in globs)


def _is_of_type(asset: pystac.Asset, wanted: str) -> bool:
    media_type: Any = getattr(asset, "media_type", None)
    if media_type is None:
        return False
    kind, *parameters = (part.strip().lower() for part in str(media_type).split(";"))
    wanted_kind, *wanted_parameters = (part.strip().lower() for part in wanted.split(";"))
    return fnmatchcase(kind, wanted_kind) and set(wanted_parameters) <= set(parameters)
