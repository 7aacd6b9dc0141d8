"""The README.md of a project, whose front matter is the metadata of the SharingHub item.

The front matter is YAML between two lines of three hyphens. Only the fields that change are
rewritten; every other byte stays.

Source: SharingHub user documentation, "Metadata"; observed at SharingHub 0.4.0.
"""

from __future__ import annotations

import itertools
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pystac

from stac_gitlab.download.source import redacted_url
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.files.paths import is_local, is_web
from stac_gitlab.redaction import quoted, redact_text

README = "README.md"
_FRONT = re.compile(r"---[ \t]*\r?\n(?P<yaml>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_BRACKETS = re.compile(r"[\[\]{}]")
_MAX_DEPTH = 128
_MAX_VALUES = 1_000_000
# SharingHub sets these itself, from the project.
_OF_THE_SERVER = frozenset({"title", "description", "created", "updated"})
_EXTENT = frozenset({"start_datetime", "end_datetime", "providers", "license"})
# Prefixes of fields that SharingHub knows without a declaration.
_KNOWN_PREFIXES = frozenset({"eo", "label", "ml-model", "sci"})
_HIERARCHY = frozenset({"root", "parent", "child", "item", "items", "self", "collection"})


# -- fields ---------------------------------------------------------------------------------------


def fields_of(source: pystac.Item | pystac.Catalog, paths: Mapping[str, str]) -> dict[str, Any]:
    """Return the front matter for an item, a collection or a catalog.

    Args:
        source: The object.
        paths: The paths of its local assets in the project, by asset key.
    """
    made: dict[str, Any] = {}
    if isinstance(source, pystac.Item):
        made.update(_of_item(source))
    else:
        made["title"] = source.title or source.id
        made.update({k: v for k, v in source.extra_fields.items() if ":" not in k})
    if isinstance(source, pystac.Collection):
        made["license"] = source.license
        made["extent"] = _extent_of(source)
        if source.providers:
            made["providers"] = [provider.to_dict() for provider in source.providers]
        if source.keywords:
            made["keywords"] = source.keywords
    kept = [link for link in source.links if link.rel not in _HIERARCHY]
    links = [_link_of(link) for link in kept if is_web(link.get_target_str())]
    if links:
        made["links"] = links
    assets = getattr(source, "assets", {})
    if assets:
        made["assets"] = [_asset_of(key, asset, paths) for key, asset in assets.items()]
    return made


def _of_item(item: pystac.Item) -> dict[str, Any]:
    properties = item.to_dict(include_self_link=False, transform_hrefs=False)["properties"]
    made: dict[str, Any] = {"title": properties.get("title") or item.id}
    made.update({n: properties[n] for n in ("license", "providers") if n in properties})
    start, end = properties.get("start_datetime"), properties.get("end_datetime")
    extent: dict[str, Any] = {"temporal": [start, end]} if start and end else {}
    extent |= _spatial(item.bbox)
    if extent:
        made["extent"] = extent
    plain = {str(k): v for k, v in properties.items() if k not in _OF_THE_SERVER | _EXTENT}
    made.update({k: v for k, v in plain.items() if ":" not in k and v is not None})
    for name, value in plain.items():
        prefix, colon, field = name.partition(":")
        if not colon:
            continue
        schema = next((s for s in item.stac_extensions if f"/{prefix}/" in str(s)), None)
        if schema is not None and prefix not in _KNOWN_PREFIXES:
            made.setdefault("extensions", {})[prefix] = schema
        if schema is not None or prefix in _KNOWN_PREFIXES:
            made.setdefault(prefix, {})[field] = value
        else:
            made[name] = value
    return made


def _extent_of(collection: pystac.Collection) -> dict[str, Any]:
    made = collection.extent.to_dict() if collection.extent else {}
    bbox = next(iter(made.get("spatial", {}).get("bbox") or ()), None)
    interval = next(iter(made.get("temporal", {}).get("interval") or ()), None)
    extent = _spatial(bbox)
    if interval and all(interval):
        extent["temporal"] = list(interval)
    return extent


def _spatial(bbox: Sequence[float] | None) -> dict[str, Any]:
    """Return the spatial extent for a bounding box, without its heights."""
    if not bbox or len(bbox) not in (4, 6):
        return {}
    half = len(bbox) // 2
    return {"spatial": [*bbox[:2], *bbox[half : half + 2]]}


def _link_of(link: pystac.Link) -> dict[str, Any]:
    href = redacted_url(link.get_target_str() or "")
    named = {"rel": link.rel, "href": href, "type": link.media_type, "title": link.title}
    return {name: value for name, value in named.items() if value}


def _asset_of(key: str, asset: pystac.Asset, paths: Mapping[str, str]) -> dict[str, Any]:
    named = {
        "key": key,
        "href": paths[key] if key in paths else redacted_url(asset.href),
        "type": asset.media_type,
        "roles": asset.roles,
        "title": asset.title,
        "description": asset.description,
    }
    return {name: value for name, value in named.items() if value}


def file_assets(paths: Iterable[str]) -> list[dict[str, str]]:
    """Return the entries that make every file an asset, whose key is its path.

    An entry with an href is complete. Patterns find only files among the first hundred.
    """
    return [{"key": path, "href": path} for path in paths]


def assets_after(entries: Sequence[Any], before: Sequence[str], after: Sequence[str]) -> list[Any]:
    """Return the entries for the assets of a README once the files have changed.

    A list of all files stays one. From any other, only files that are gone are removed.

    Args:
        entries: The entries that there are.
        before: The files that the project has.
        after: The files that it will have.
    """
    files = set(after)
    gone = set(before) - files
    named = {repr(entry) for entry in entries}
    if named == {repr(entry) for entry in file_assets(before)}:
        return [*file_assets(sorted(files))]
    return [entry for entry in entries if _path_in(entry) not in gone]


def _path_in(entry: Any) -> str | None:
    """Return the path of the file that an entry names, if it is one file."""
    path = entry
    if isinstance(entry, Mapping):
        path = entry.get("path") or entry.get("href")
    return posixpath.normpath(path.lstrip("/")) if isinstance(path, str) and path else None


def without_secrets(value: Any) -> Any:
    """Return metadata without token parameters and known secrets."""
    if isinstance(value, Mapping):
        return {name: without_secrets(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(each) for each in value]
    return redact_text(value) if isinstance(value, str) else value


def check_fields(fields: Mapping[str, Any], paths: Iterable[str]) -> None:
    """Check that SharingHub can make an item of a front matter.

    Args:
        fields: The front matter.
        paths: The files that the project will have.

    Raises:
        ConfigurationError: If it cannot: the project would be missing from its listings.
    """
    for name, kind, wanted in _KINDS:
        if fields.get(name) is not None and not isinstance(fields[name], kind):
            raise _refused(name, fields[name], wanted)
    _check_values(fields)
    _check_extent(fields.get("extent") or {})
    _check_lists(fields)
    files = set(paths)
    for entry in fields.get("assets") or ():
        _check_asset(entry, files)


def _check_values(fields: Mapping[str, Any]) -> None:
    """Check that JSON can hold all values: SharingHub fails on each list with others."""
    for name, value in fields.items():
        for each in _values(value):
            if isinstance(each, float) and not math.isfinite(each):
                raise _refused(name, each, "a finite number")
            if isinstance(each, (set, bytes)):
                raise _refused(name, each, "a text, a number, a date, a list or a mapping")


def _values(value: Any) -> Iterator[Any]:
    """Yield a value, and all values inside lists and mappings."""
    yield value
    if isinstance(value, (Mapping, list, tuple)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _values(each)


def _check_lists(fields: Mapping[str, Any]) -> None:
    for provider in fields.get("providers") or ():
        if not isinstance(provider, Mapping) or not isinstance(provider.get("name"), str):
            raise _refused("providers", provider, "a provider with a name")
        if not isinstance(provider.get("roles", []), list):
            raise _refused("providers", provider, "roles in a list")
    for link in fields.get("links") or ():
        if not isinstance(link, Mapping) or not isinstance(link.get("href"), str):
            raise _refused("links", link, "a link with an href")
    for prefix in fields.get("extensions") or ():
        if not isinstance(fields.get(prefix, {}), Mapping):
            raise _refused(prefix, fields[prefix], "the fields of an extension")


_KINDS: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("title", str, "a text"),
    ("license", str, "an SPDX identifier"),
    ("license-url", str, "a URL"),
    ("preview", str, "a path or a URL"),
    ("extent", Mapping, "spatial and temporal"),
    ("providers", list, "a list"),
    ("related", Mapping, "collections and the URLs of projects"),
    ("links", list, "a list"),
    ("assets", list, "a list"),
    ("extensions", Mapping, "prefixes and the URLs of schemas"),
    ("sharinghub", Mapping, "names and values"),
)


def _check_extent(extent: Mapping[str, Any]) -> None:
    spatial, temporal = extent.get("spatial"), extent.get("temporal")
    if spatial is not None and not isinstance(spatial, str):
        is_bbox = isinstance(spatial, list) and len(spatial) == 4
        if not is_bbox or not all(_is_number(each) for each in spatial):
            raise _refused("extent.spatial", spatial, "west, south, east and north, or WKT")
    if temporal is not None:
        is_pair = isinstance(temporal, list) and len(temporal) == 2
        if not is_pair or not all(each is None or _is_date(each) for each in temporal):
            raise _refused("extent.temporal", temporal, "a list of start and end, in UTC")


def _check_asset(entry: object, files: set[str]) -> None:
    if isinstance(entry, str):
        return
    if not isinstance(entry, Mapping):
        raise _refused("assets", entry, "a path, a pattern, or an asset")
    href = entry.get("href")
    if not (entry.get("path") or entry.get("glob") or (entry.get("key") and href)):
        raise _refused("assets", entry, "an asset with a path, a glob, or a key and an href")
    if not isinstance(entry.get("roles") or [], list):
        raise _refused("assets", entry, "roles in a list")
    is_file = isinstance(href, str) and is_local(href) and "+http" not in href
    if is_file and posixpath.normpath(str(href).lstrip("/")) not in files:
        raise _refused("assets", entry, "the path of a file of the project")


def _is_number(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]  # it is a number


def _is_date(value: object) -> bool:
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def _refused(name: str, value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} is {quoted(repr(value))} in the metadata of the project, and has to be {wanted}. "
        "SharingHub would refuse or ignore it."
    )


# -- the file -------------------------------------------------------------------------------------


class Readme:
    """A README.md.

    Args:
        content: The file; empty for a new one.

    Attributes:
        fields: The front matter.

    Raises:
        ConfigurationError: If it is not UTF-8, or its front matter is not a YAML mapping.
    """

    def __init__(self, content: bytes = b"") -> None:
        try:
            # SharingHub finds no front matter behind a byte order mark.
            self._text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{README} is not UTF-8 (at byte {error.start}).") from None
        match = _FRONT.match(self._text)
        self._span = match.span("yaml") if match else None
        self.fields: dict[str, Any] = _parsed(match["yaml"]) if match else {}

    def merged(self, fields: Mapping[str, Any]) -> bytes:
        """Return the file with these fields in its front matter. Mappings in it are merged, too."""
        new = {name: _merged(self.fields.get(name), value) for name, value in fields.items()}
        changed = {n: v for n, v in new.items() if n not in self.fields or self.fields[n] != v}
        text = self._text
        if self._span is None:
            return f"---\n{_dumped(changed)}---\n{text}".encode() if changed else text.encode()
        start, end = self._span
        front = text[start:end]
        newline = "\r\n" if "\r\n" in text[: start + 1] or "\r\n" in front else "\n"
        for first, last, name in reversed(_spans(front)):
            if name in changed:
                block = _dumped({name: changed.pop(name)}).replace("\n", newline)
                kept = front[last:]
                front = front[:first] + (block if not kept[:1] else block.rstrip("\r\n")) + kept
        if front and not front.endswith("\n"):
            front += newline
        if changed:
            front += _dumped(changed).replace("\n", newline)
        return (text[:start] + front + text[end:]).encode()


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}


def _parsed(front: str) -> dict[str, Any]:
    yaml = _yaml()
    too_large = ConfigurationError(
        f"The front matter of {README} is nested too deeply, or repeats parts of itself too often."
    )
    try:
        # PyYAML takes time for each open bracket at each word.
        if _depth(front) > _MAX_DEPTH:
            raise too_large
        fields = yaml.safe_load(front)
        # A few aliases can stand for any number of values. Without any, each has its characters.
        most = max(_MAX_VALUES, len(front))
        if sum(1 for _ in itertools.islice(_values(fields), most + 1)) > most:
            raise too_large
    except RecursionError:
        raise too_large from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigurationError(
            f"The front matter of {README} is not valid YAML ({problem[:200]}). SharingHub could "
            "not list the project."
        ) from None
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise ConfigurationError(f"The front matter of {README} is not a YAML mapping.")
    return fields


def _depth(front: str) -> int:
    """Return how many brackets and braces are open at a time, those in texts included."""
    steps = (1 if bracket in "[{" else -1 for bracket in _BRACKETS.findall(front))
    return max(itertools.accumulate(steps), default=0)


def _spans(front: str) -> list[tuple[int, int, str]]:
    """Return where each field of a front matter begins and ends, without comments behind it."""
    node = _yaml().compose(front)
    if node is None:
        return []
    if node.flow_style:
        raise ConfigurationError(
            f"The front matter of {README} is written in braces. Write one field a line."
        )
    spans = []
    for key, value in node.value:
        first, last = key.start_mark.index, value.end_mark.index
        lines = front[first:last].splitlines(keepends=True)
        while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
            last -= len(lines.pop())
        text = front[first:last]
        spans.append((first, first + len(text.rstrip("\r\n")), key.value))
    return spans


def _dumped(fields: Mapping[str, Any]) -> str:
    yaml = _yaml()
    try:
        text: str = yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True, width=100)
    except yaml.YAMLError as error:
        problem = ": ".join(map(str, error.args))
        raise ConfigurationError(
            f"The metadata cannot be written to {README} ({quoted(problem)}). Use texts, numbers, "
            "dates, lists and mappings."
        ) from None
    return text


def _yaml() -> Any:
    try:
        import yaml  # noqa: PLC0415  # optional
    except ImportError:
        raise ConfigurationError(
            "Publishing needs PyYAML, which is not installed: pip install 'stac-gitlab[publish]'"
        ) from None
    return yaml
