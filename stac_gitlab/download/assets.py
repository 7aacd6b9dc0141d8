"""Assets: their roles, filters, and the paths that they are downloaded to."""

from __future__ import annotations

import contextlib
import os
import re
import string
from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from mimetypes import MimeTypes
from typing import Any, Literal, Protocol
from urllib.parse import unquote

import pystac

from stac_gitlab.errors import ConfigurationError, DownloadError
from stac_gitlab.files.paths import relative_path
from stac_gitlab.redaction import quoted
from stac_gitlab.settings import expect, expect_choice

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
    expect_choice("match", match, ("any", "all"))
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


DEFAULT_TEMPLATE = "{collection}/{id}/{key}"
_FIELDS = frozenset({"collection", "id", "key", "year", "month", "day", "filename", "stem", "ext"})
# At least one of them, or all assets of an item would be one file.
_NAMING_FIELDS = frozenset({"key", "filename", "stem"})
_PROPERTY = re.compile(r"properties\[([^][{}]+)\]")
_EXTENSIONS = {
    "application/geo+json": ".geojson",
    "application/geopackage+sqlite3": ".gpkg",
    "application/netcdf": ".nc",
    "application/vnd.apache.parquet": ".parquet",
    "application/x-hdf5": ".h5",
    "application/x-netcdf": ".nc",
    "image/jp2": ".jp2",
    "image/jpeg": ".jpg",
    "image/tiff": ".tif",
}
# Without the tables of the system, which differ.
_MEDIA_TYPES = MimeTypes()


class PathTemplate:
    """The path of an asset below the output folder, made of fields of the item and the asset.

    Args:
        template: Text with fields such as ``{id}``, ``{key}`` and ``{properties[platform]}``.

    Raises:
        ConfigurationError: If the template is not valid.
    """

    def __init__(self, template: str) -> None:
        expect("template", template, str, wanted="text such as '{id}/{key}'")
        self._template = template
        try:
            parsed = string.Formatter().parse(template)
            fields = {name for _, name, _, _ in parsed if name is not None}
            properties = {name: match[1] for name in fields if (match := _PROPERTY.fullmatch(name))}
            self._properties = set(properties.values())
            are_known = fields - set(properties) <= _FIELDS
            if are_known:
                examples = dict.fromkeys(self._properties, "")
                template.format(**dict.fromkeys(_FIELDS, ""), properties=examples)
        except (ValueError, LookupError) as error:
            raise ConfigurationError(f"template={template!r}: {error}.") from None
        if not are_known or fields.isdisjoint(_NAMING_FIELDS):
            raise ConfigurationError(
                f"template={template!r}: use {{key}}, {{filename}} or {{stem}}, and of the others "
                f"only {', '.join(f'{{{name}}}' for name in sorted(_FIELDS - _NAMING_FIELDS))} and "
                "{properties[name]}."
            )

    def path(self, item: HasAssets, key: str, asset: pystac.Asset) -> str:
        """Return the path of an asset, whose key is a path. It is not checked as a whole.

        Raises:
            DownloadError: If an id or a property cannot be a path.
        """
        date = _date_of(item)
        stem, extension = _file_name(key, asset)
        return self._template.format(
            # Checked on their own: an empty or absolute id is not noticed inside a path.
            collection=relative_path(str(getattr(item, "collection_id", None) or "no-collection")),
            id=relative_path(str(getattr(item, "id", ""))),
            key=key,
            filename=f"{stem}{extension}",
            stem=stem,
            ext=extension,
            year="undated" if date is None else f"{date.year:04}",
            month="undated" if date is None else f"{date.month:02}",
            day="undated" if date is None else f"{date.day:02}",
            properties={name: _property(item, name) for name in self._properties},
        )


def _property(item: HasAssets, name: str) -> str:
    """Return a property of an item as a path; raise a DownloadError if it cannot be one."""
    properties: object = getattr(item, "properties", None)
    value = properties.get(name) if isinstance(properties, Mapping) else None
    if not isinstance(value, (str, int, float)):
        problem = "is missing" if value is None else f"is a {type(value).__name__}"
        raise DownloadError(
            f"The path of the file cannot be made from the template: the property {quoted(name)} "
            f"{problem}."
        )
    return relative_path(str(value))


def _date_of(item: HasAssets) -> datetime | None:
    """Return the date of an item, or the start of its period; None if there is none."""
    date: object = getattr(item, "datetime", None)
    if date is None and isinstance(item, pystac.Item):
        # An invalid start_datetime raises any of these.
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            date = item.common_metadata.start_datetime
    return date if isinstance(date, datetime) else None


def _file_name(key: str, asset: pystac.Asset) -> tuple[str, str]:
    """Return the name of an asset's file, without its extension, and the extension.

    The name is that of ``file:local_path``, of the href, or of the key. A name without an extension
    gets that of the media type.
    """
    local_path = asset.extra_fields.get("file:local_path")
    candidates = (
        local_path if isinstance(local_path, str) else "",
        unquote(asset.href.partition("?")[0].partition("#")[0]),
        key,
    )
    names = (candidate.rpartition("/")[2] for candidate in candidates)
    stem, extension = os.path.splitext(next(filter(None, names), ""))
    kind = str(asset.media_type or "").partition(";")[0].strip().lower()
    return stem, extension or _EXTENSIONS.get(kind) or _MEDIA_TYPES.guess_extension(kind) or ""
