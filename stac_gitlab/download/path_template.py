"""Templates for the paths of the assets of many items."""

from __future__ import annotations

import contextlib
import os
import string
from datetime import datetime
from mimetypes import MimeTypes
from urllib.parse import unquote

import pystac

from stac_gitlab.download.assets import HasAssets
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.files.paths import relative_path
from stac_gitlab.settings import expect

DEFAULT_TEMPLATE = "{collection}/{id}/{key}"
_FIELDS = frozenset({"collection", "id", "key", "year", "month", "day", "filename", "stem", "ext"})
# At least one of them, or all assets of an item would be one file.
_NAMING_FIELDS = frozenset({"key", "filename", "stem"})
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
        template: Text with fields such as ``{id}`` and ``{key}``.

    Raises:
        ConfigurationError: If the template is not valid.
    """

    def __init__(self, template: str) -> None:
        self._template = _checked(template)

    def path(self, item: HasAssets, key: str, asset: pystac.Asset) -> str:
        """Return the path of an asset. It is not checked as a whole.

        Args:
            item: The item.
            key: The asset key as a path.
            asset: The asset.

        Raises:
            UnsafePathError: If an id cannot be a path.
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
        )


def _checked(template: str) -> str:
    expect("template", template, str, wanted="text such as '{id}/{key}'")
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        if fields <= _FIELDS:
            template.format(**dict.fromkeys(_FIELDS, ""))
    except (ValueError, LookupError) as error:
        raise ConfigurationError(f"template={template!r}: {error}.") from None
    if not fields <= _FIELDS or fields.isdisjoint(_NAMING_FIELDS):
        raise ConfigurationError(
            f"template={template!r}: use {{key}}, {{filename}} or {{stem}}, and of the others only "
            + ", ".join(f"{{{name}}}" for name in sorted(_FIELDS - _NAMING_FIELDS))
            + "."
        )
    return template


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
