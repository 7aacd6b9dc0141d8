"""What is published: the files of a folder, of an item or of a saved catalog.

Each file has a path in the project, and the source has metadata and a text for a new README.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pystac

from stac_gitlab.catalogs.readme import fields_of
from stac_gitlab.download.assets import check_asset
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.files.partial_file import OWN_PREFIX
from stac_gitlab.files.paths import is_local, is_web, local_path, relative_path
from stac_gitlab.redaction import quoted
from stac_gitlab.settings import path_of

GIT = ".git"
"""The name of what git keeps for itself, which no repository can contain."""


def local_source(source: Any) -> tuple[dict[str, Path], dict[str, Any], str]:
    """Return the files to publish by their paths, the metadata, and a text for a new README."""
    if isinstance(source, pystac.Item):
        files = _item_files(source)
        paths = {key: path for path, (key, _) in files.items()}
        text = _text_of(source.properties.get("title") or source.id, source.properties)
        return {p: local for p, (_, local) in files.items()}, fields_of(source, paths), text
    if isinstance(source, pystac.Catalog):
        href = source.get_self_href()
        if href is None or not is_local(href) or not os.path.exists(local_path(href)):
            raise ConfigurationError(
                f"The catalog {source.id!r} is not in a folder. Save it first: "
                "catalog.normalize_and_save(folder, pystac.CatalogType.SELF_CONTAINED)."
            )
        text = _text_of(source.title or source.id, {"description": source.description})
        return _folder_files(Path(local_path(href)).parent), fields_of(source, {}), text
    folder = Path(path_of("source", source, wanted="a folder, an item or a catalog")).expanduser()
    if not folder.is_dir():
        raise ConfigurationError(f"source={quoted(str(source))}: there is no such folder.")
    return _folder_files(folder), {}, ""


def _text_of(title: str, properties: Mapping[str, Any]) -> str:
    return f"# {title}\n\n{properties.get('description') or ''}".rstrip() + "\n"


def _folder_files(folder: Path) -> dict[str, Path]:
    found = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != GIT)
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise ConfigurationError(
                    f"{quoted(str(Path(parent) / name))} is a link to a folder. Publish that "
                    "folder itself, or remove the link."
                )
        for name in sorted(names):
            if not name.startswith(OWN_PREFIX) and name != GIT:
                path = Path(parent) / name
                found[_checked(path.relative_to(folder).as_posix(), path)] = path
    return found


def _checked(path: str, local: Path) -> str:
    """Return a path in the project, if the project can have the file."""
    if not local.is_file():
        raise ConfigurationError(
            f"{quoted(str(local))} is no file: a link that leads nowhere, a pipe, or a socket. "
            "Remove it, or publish another folder."
        )
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{quoted(str(local))}: the name is not UTF-8. Rename the file."
        ) from None
    return path


def _item_files(item: pystac.Item) -> dict[str, tuple[str, Path]]:
    """Return the asset keys and local files of an item, by their paths in the project."""
    found: dict[str, tuple[str, Path]] = {}
    home = item.get_self_href()
    folder = Path(local_path(home)).parent if home and is_local(home) else None
    for key, asset in item.assets.items():
        check_asset(key, asset)
        href = asset.href if is_web(asset.href) else asset.get_absolute_href() or asset.href
        if not is_local(href):
            continue
        local = Path(local_path(href)).absolute()
        if not local.is_file():
            raise ConfigurationError(
                f"{quoted(item.id)}: the asset {quoted(key)} is not a file: {quoted(str(local))}."
            )
        path = relative_path(_path_of(key, asset, local, folder))
        if path in found and found[path][1] != local:
            raise ConfigurationError(
                f"{quoted(item.id)}: the assets {quoted(found[path][0])} and {quoted(key)} would "
                f"both be {quoted(path)}. Give one of them a file:local_path."
            )
        found[path] = key, local
    return found


def _path_of(key: str, asset: pystac.Asset, local: Path, folder: Path | None) -> str:
    named = asset.extra_fields.get("file:local_path")
    if isinstance(named, str) and named:
        return named
    if folder is not None and local.is_relative_to(folder.absolute()):
        return local.relative_to(folder.absolute()).as_posix()
    return key if posixpath.splitext(key)[1] == local.suffix != "" else local.name
