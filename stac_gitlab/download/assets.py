"""Which assets of an item or collection: by role, media type and key.

Plain functions over anything with ``.assets``. They return assets by key, in the item's order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

import pystac

from stac_gitlab.errors import ConfigurationError

Names = str | Iterable[str] | None
"""One name, several, or None where it does not matter."""


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
    """Tell whether an asset, or any asset of an item, has one of `roles`."""
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
    """Return the assets that fit everything asked for.

    Args:
        obj: An item or collection.
        roles: Roles to have; None for assets of any role and of none.
        exclude_roles: Roles not to have.
        media_types: Media types, such as ``"text/csv"`` or ``"image/*"``. Parameters count where
            they are given: ``"image/tiff"`` also takes ``image/tiff; application=geotiff``.
        include: Globs, one of which the asset key has to match. ``*`` goes across slashes. A key
            always matches itself, also where it holds ``[`` or ``?``.
        exclude: Globs, none of which the asset key may match.
        match: Whether an asset needs ``"any"`` of `roles` or ``"all"`` of them.

    Raises:
        ConfigurationError: If an argument is not a name or a collection of names.

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
    types = _names(media_types, "media_types")
    globs = _names(include, "include")
    unwanted_globs = _names(exclude, "exclude")

    def fits(key: str, asset: pystac.Asset) -> bool:
        has = set(_roles(asset))
        if wanted_roles is not None:
            held = has.intersection(wanted_roles)
            if len(held) < (len(set(wanted_roles)) if match == "all" else 1):
                return False
        return (
            has.isdisjoint(unwanted_roles or ())
            and (types is None or any(_is_of_type(asset.media_type, t) for t in types))
            and (globs is None or _is_named(key, globs))
            and not _is_named(key, unwanted_globs or ())
        )

    return {key: asset for key, asset in _assets_of(obj).items() if fits(key, asset)}


def assets_with_role(obj: HasAssets, role: str) -> dict[str, pystac.Asset]:
    """Return the assets with a role."""
    return filter_assets(obj, roles=role)


def data_assets(obj: HasAssets) -> dict[str, pystac.Asset]:
    """Return the assets with the role ``data``: data sets, and the weights of models."""
    return assets_with_role(obj, "data")


def group_by_role(obj: HasAssets) -> dict[str, dict[str, pystac.Asset]]:
    """Return the assets of each role. One with several roles is in several groups."""
    return {role: assets_with_role(obj, role) for role in asset_roles(obj)}


def _assets_of(obj: HasAssets) -> Mapping[str, pystac.Asset]:
    assets = getattr(obj, "assets", None)
    if not isinstance(assets, Mapping):
        raise ConfigurationError(
            f"An item or collection is needed, which has assets, not {type(obj).__name__}."
        )
    return assets


def _names(names: Names, argument: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str):
        return (names,)
    # A mapping is iterable too, but whoever passes one meant something else.
    is_collection = isinstance(names, Iterable) and not isinstance(names, Mapping)
    found = tuple(names) if is_collection else None
    if found is None or not all(isinstance(name, str) for name in found):
        raise ConfigurationError(f"{argument}={names!r}: give a name or a list of names.")
    return found


def _roles(asset: pystac.Asset) -> list[str]:
    # Metadata written by hand say "roles": "data" now and then.
    roles: Any = asset.roles or ()
    return [roles] if isinstance(roles, str) else [r for r in roles if isinstance(r, str)]


def _is_named(key: str, globs: tuple[str, ...]) -> bool:
    return key in globs or any(fnmatchcase(key, glob) for glob in globs)


def _is_of_type(media_type: str | None, wanted: str) -> bool:
    if media_type is None:
        return False
    kind, *parameters = (part.strip().lower() for part in str(media_type).split(";"))
    wanted_kind, *wanted_parameters = (part.strip().lower() for part in wanted.split(";"))
    return fnmatchcase(kind, wanted_kind) and set(wanted_parameters) <= set(parameters)
