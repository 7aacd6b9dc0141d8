"""Filter arguments as query parameters of an items endpoint.

Each function accepts the usual notations of a filter, and returns the text that the specification
requires. For any other value it raises a ConfigurationError before a request is sent, because a
server may ignore a filter that it does not understand, and return all items.

Source: OGC API - Features - Part 1 (bbox, datetime, limit) and the STAC API extensions Fields,
Sort, Filter, Query and Free-Text, as they are written in a GET request.
"""

from __future__ import annotations

import calendar
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

from stac_gitlab.errors import ConfigurationError

_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", re.ASCII)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", re.ASCII | re.IGNORECASE
)
_COMPARISON = re.compile(r"(.+?)(>=|<=|<>|!=|=|>|<)(.+)", re.DOTALL)
_OPERATORS = {"=": "eq", "<>": "neq", "!=": "neq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_QUERY_NAMES = frozenset({*_OPERATORS.values(), "startsWith", "endsWith", "contains", "in"})
_CQL2_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


# -- where ------------------------------------------------------------------------------------


def bbox_parameter(value: Any) -> str:
    """Return a bounding box as ``west,south,east,north``, with two heights if it has them.

    Args:
        value: 4 or 6 numbers in a sequence, or in a text with commas; or a geometry, of which the
            endpoint can take the bounding box only: GeoJSON, or anything with
            ``__geo_interface__``. West may be greater than east: the box crosses the antimeridian.

    Example:
        >>> bbox_parameter({"type": "LineString", "coordinates": [[5, 46], [8.5, 47]]})
        '5,46,8.5,47'
    """
    geometry = getattr(value, "__geo_interface__", value)
    if isinstance(geometry, Mapping):
        box = _box_around(geometry)
    else:
        try:
            box = [float(part) for part in (value.split(",") if isinstance(value, str) else value)]
        except (TypeError, ValueError):
            raise ConfigurationError(
                f"bbox={value!r}: give west, south, east and north as numbers, or a geometry."
            ) from None
    _check_box(box)
    return ",".join(map(_number, box))


def _check_box(box: list[float]) -> None:
    if len(box) not in (4, 6):
        raise ConfigurationError(
            f"bbox={box}: {len(box)} numbers. Give west, south, east, north, or west, south, "
            "lowest, east, north, highest."
        )
    half = len(box) // 2
    (west, south, *low), (east, north, *high) = box[:half], box[half:]
    if not all(map(math.isfinite, box)):
        raise ConfigurationError(f"bbox={box}: not all of these are numbers.")
    if not (-90 <= south <= 90 and -90 <= north <= 90 and abs(west) <= 180 and abs(east) <= 180):
        raise ConfigurationError(
            f"bbox={box}: degrees of longitude lie between -180 and 180, degrees of latitude "
            "between -90 and 90. Longitude comes first."
        )
    if south > north:
        raise ConfigurationError(
            f"bbox={box}: the south ({_number(south)}) lies north of the north ({_number(north)}). "
            "The order is west, south, east, north."
        )
    if low > high:
        raise ConfigurationError(f"bbox={box}: the lowest height is above the highest.")


def _box_around(geometry: Mapping[str, Any]) -> list[float]:
    parts = [part for part in map(list, _parts(geometry)) if part]
    points = [point for part in parts for point in part]
    if not points:
        raise ConfigurationError(
            "bbox: a geometry without a single position. Is it GeoJSON, and not empty?"
        )
    west, east = min(p[0] for p in points), max(p[0] for p in points)
    if west == -180 and east == 180:
        # RFC 7946, 3.1.9: a geometry that crosses the antimeridian is cut there into parts.
        extents = sorted((min(p[0] for p in part), max(p[0] for p in part)) for part in parts)
        end, widest = -180.0, 0.0
        for start, stop in extents:
            if start - end > widest:
                widest, west, east = start - end, start, end
            end = max(end, stop)
    return [west, min(p[1] for p in points), east, max(p[1] for p in points)]


def _parts(geometry: Any) -> Iterator[Iterator[tuple[float, float]]]:
    """Yield the positions of each part of a geometry."""
    if not isinstance(geometry, Mapping):
        return
    if geometry.get("type") == "Feature":
        yield from _parts(geometry.get("geometry"))
    for name in ("features", "geometries"):
        for part in geometry.get(name) or ():
            yield from _parts(part)
    coordinates = geometry.get("coordinates") or ()
    if str(geometry.get("type")).startswith("Multi") and isinstance(coordinates, (list, tuple)):
        yield from map(_positions, coordinates)
    else:
        yield _positions(coordinates)


def _positions(coordinates: Any) -> Iterator[tuple[float, float]]:
    pending: list[Any] = [coordinates]
    while pending:
        part = pending.pop()
        try:
            if len(part) and all(isinstance(number, (int, float)) for number in part):
                west, south, *_ = part
                yield float(west), float(south)
            else:
                pending.extend(part)
        except (TypeError, ValueError):
            raise ConfigurationError(
                "bbox: a geometry whose coordinates are not lists of positions."
            ) from None


def _number(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(float(number))


# -- when -------------------------------------------------------------------------------------


def datetime_parameter(value: Any) -> str:
    """Return an instant, or an interval ``start/end``, in RFC 3339 and UTC.

    Args:
        value: A ``datetime`` or ``date``, a text, or a pair of them for an interval; None or
            ``".."`` is an open end. A text may be a year, month or day, which stands for all of
            it. A time without zone is UTC.

    Example:
        >>> datetime_parameter("2024-01/2024-03")
        '2024-01-01T00:00:00Z/2024-03-31T23:59:59Z'
        >>> datetime_parameter(["2024-01-01T12:00:00Z", None])
        '2024-01-01T12:00:00Z/..'
    """
    if isinstance(value, str):
        ends: list[Any] = value.split("/")
    elif isinstance(value, date):
        ends = [value]
    else:
        try:
            ends = list(value)
        except TypeError:
            raise _no_time(value) from None
    if len(ends) == 1:
        first, last = _span(ends[0], value)
        if first is None:
            raise ConfigurationError(f"datetime={value!r}: an open end belongs to an interval.")
        return _instant(first) if first == last else f"{_instant(first)}/{_instant(last)}"
    if len(ends) != 2:
        raise ConfigurationError(
            f"datetime={value!r}: an interval has two ends, this has {len(ends)}."
        )
    start, end = _span(ends[0], value)[0], _span(ends[1], value)[1]
    if start is None and end is None:
        raise ConfigurationError(f"datetime={value!r}: an interval needs at least one end.")
    if start is not None and end is not None and start > end:
        raise ConfigurationError(f"datetime={value!r}: the interval ends before it begins.")
    return f"{_instant(start)}/{_instant(end)}"


def _span(end: Any, whole: Any) -> tuple[datetime | None, datetime | None]:
    """Return the first and the last instant of what one end says."""
    if end is None or (isinstance(end, str) and end.strip() in ("", "..")):
        return None, None
    if isinstance(end, datetime):
        return _aware(end), _aware(end)
    text = end.isoformat() if isinstance(end, date) else end
    if not isinstance(text, str):
        raise _no_time(whole)
    text = text.strip()
    try:
        if whole_period := _DATE.fullmatch(text):
            year, month, day = (int(part or 0) for part in whole_period.groups())
            return _period(year, month, day)
        if _TIME.fullmatch(text):
            instant = _aware(datetime.fromisoformat(text.upper()))
            return instant, instant
    except ValueError as error:
        raise ConfigurationError(f"datetime={whole!r}: {error}.") from None
    raise _no_time(whole)


def _period(year: int, month: int, day: int) -> tuple[datetime, datetime]:
    """Return the first and the last second of a year, a month (day 0) or a day."""
    start = datetime(year, month or 1, day or 1, tzinfo=UTC)
    last_month = month or 12
    last_day = day or calendar.monthrange(year, last_month)[1]
    return start, datetime(year, last_month, last_day, 23, 59, 59, tzinfo=UTC)


def _aware(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant


def _instant(instant: datetime | None) -> str:
    if instant is None:
        return ".."
    try:
        return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise ConfigurationError(f"datetime: {instant} is not in the years 1 to 9999.") from None


def _no_time(value: Any) -> ConfigurationError:
    return ConfigurationError(
        f"datetime={value!r}: give a datetime, '2024', '2024-01', '2024-01-31', "
        "'2024-01-31T12:00:00Z', or an interval of two of these, as '2024-01/2024-03'."
    )


# -- which, and how -----------------------------------------------------------------------------


def ids_parameter(value: Any) -> tuple[str, ...]:
    """Return item ids, each once."""
    ids = _texts("ids", value)
    if not ids:
        raise ConfigurationError("ids: give at least one id, or None for all items.")
    return tuple(dict.fromkeys(ids))


def sortby_parameter(value: Any) -> str:
    """Return what to sort by, as ``name,-other``.

    Args:
        value: Names with ``-`` before them for descending order, in a text with commas or in a
            list; or ``{"field": name, "direction": "asc" or "desc"}``, as in a POST request.

    Example:
        >>> sortby_parameter(["+properties.datetime", {"field": "id", "direction": "desc"}])
        'properties.datetime,-id'
    """
    parts = value.split(",") if isinstance(value, str) else value
    keys = _list("sortby", [parts] if isinstance(parts, Mapping) else parts)
    if not keys:
        raise ConfigurationError("sortby: it is empty.")
    return ",".join(map(_sort_key, keys))


def _sort_key(part: Any) -> str:
    if isinstance(part, Mapping):
        field, direction = part.get("field"), part.get("direction", "asc")
        if not isinstance(field, str) or direction not in ("asc", "desc"):
            raise ConfigurationError(
                f"sortby={dict(part)!r}: give a field, and 'asc' or 'desc' as its direction."
            )
        part = f"{'-' if direction == 'desc' else ''}{field}"
    name = part.strip().removeprefix("+") if isinstance(part, str) else ""
    if not name.removeprefix("-").strip():
        raise ConfigurationError(f"sortby: {part!r} is no name of a property.")
    return name


def fields_parameter(value: Any) -> str:
    """Return the fields to include and exclude, as ``name,-other``.

    Args:
        value: Names with ``-`` before those to leave out, in a text with commas or in a list; or
            ``{"include": […], "exclude": […]}``, as in a POST request.
    """
    if isinstance(value, Mapping):
        unknown = set(value) - {"include", "exclude"}
        if unknown:
            raise ConfigurationError(f"fields: {sorted(unknown)} is neither include nor exclude.")
        included = _texts("fields", value.get("include") or ())
        excluded = _texts("fields", value.get("exclude") or ())
        value = [*included, *(f"-{name}" for name in excluded)]
    parts = value.split(",") if isinstance(value, str) else value
    names = [part.strip().removeprefix("+") for part in _texts("fields", parts)]
    if not names or not all(name.removeprefix("-") for name in names):
        raise ConfigurationError(
            f"fields={value!r}: give names of fields, such as 'id,properties'."
        )
    return ",".join(names)


def filter_parameters(value: Any, lang: str | None = None) -> dict[str, str]:
    """Return a CQL2 filter and the name of its language.

    The grammar is left to the server. Only mistakes that no grammar allows are refused here.

    Args:
        value: CQL2 as a text, or as JSON in a dictionary or a text.
        lang: ``"cql2-text"`` or ``"cql2-json"``; by default what `value` looks like.

    Raises:
        ConfigurationError: If it is empty or of another type, if quotes or parentheses do not
            match, or if the JSON is invalid or has no ``op``.

    Example:
        >>> filter_parameters("eo:cloud_cover < 10")
        {'filter': 'eo:cloud_cover < 10', 'filter-lang': 'cql2-text'}
    """
    if value is None:
        raise ConfigurationError(f"filter_lang={lang!r} without a filter.")
    is_text = isinstance(value, str)
    is_json = isinstance(value, Mapping) or (is_text and value.lstrip().startswith("{"))
    if not is_json and not is_text:
        raise ConfigurationError(
            f"filter={value!r}: give CQL2 as a text, or as JSON in a dictionary."
        )
    lang = lang or ("cql2-json" if is_json else "cql2-text")
    if lang not in ("cql2-text", "cql2-json"):
        raise ConfigurationError(f"filter_lang={lang!r}: choose 'cql2-text' or 'cql2-json'.")
    if is_json != (lang == "cql2-json"):
        kind = "a text" if is_text else f"a {type(value).__name__}"
        raise ConfigurationError(f"filter_lang={lang!r}, but the filter is {kind} of another kind.")
    if not is_json:
        _check_cql2_text(value)
        return {"filter": value, "filter-lang": lang}
    if is_text:
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ConfigurationError(f"filter: not JSON ({error}).") from None
    if "op" not in value:
        raise ConfigurationError(
            "filter: CQL2 JSON needs an 'op', for example "
            "{'op': '=', 'args': [{'property': 'id'}, 'a']}."
        )
    return {"filter": _as_json("filter", value), "filter-lang": lang}


def _check_cql2_text(text: str) -> None:
    if not text.strip():
        raise ConfigurationError("filter: it is empty.")
    if "\\" in text:
        # Some servers accept \' inside a text, so it is unknown where a text ends.
        return
    unquoted = _CQL2_QUOTED.sub("", text)
    if re.search("['\"]", unquoted):
        raise ConfigurationError(f"filter: a quote is not closed in {text!r}.")
    if unquoted.count("(") != unquoted.count(")"):
        raise ConfigurationError(f"filter: the parentheses do not match in {text!r}.")


def query_parameter(value: Any) -> str:
    """Return a query of the Query extension, as JSON.

    Args:
        value: ``{"eo:cloud_cover": {"lt": 10}}``, or a list of texts such as
            ``"eo:cloud_cover<10"``.
    """
    if not isinstance(value, Mapping):
        query: dict[str, Any] = {}
        for text in _texts("query", value):
            match = _COMPARISON.fullmatch(text.strip())
            if match is None:
                raise ConfigurationError(
                    f"query: {text!r} is no comparison such as 'eo:cloud_cover<10'."
                )
            name, operator, operand = map(str.strip, match.groups())
            query.setdefault(name, {})[_OPERATORS[operator]] = _operand(operand)
        value = query
    for name, comparisons in value.items():
        if not isinstance(comparisons, Mapping) or not comparisons:
            raise ConfigurationError(
                f"query: {name!r} wants a comparison, such as {{'lt': 10}}, not {comparisons!r}."
            )
        unknown = set(comparisons) - _QUERY_NAMES
        if unknown:
            raise ConfigurationError(
                f"query: {sorted(map(str, unknown))} of {name!r} is none of "
                f"{', '.join(sorted(_QUERY_NAMES))}."
            )
    if not value:
        raise ConfigurationError("query: it is empty.")
    return _as_json("query", value)


def _operand(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def free_text_parameter(value: Any) -> str:
    """Return the terms of a free-text search, with commas between them."""
    terms = _texts("q", value)
    if not terms:
        raise ConfigurationError(f"q={value!r}: give at least one word to search for.")
    return ",".join(terms)


def other_parameter(name: str, value: Any) -> str:
    """Return the value of a parameter that only the server knows."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, Mapping):
        return _as_json(name, value)
    if isinstance(value, Iterable):
        return ",".join(other_parameter(name, each) for each in value)
    raise ConfigurationError(f"{name}={value!r}: give a text, a number, or a list of them.")


def _list(name: str, value: Any) -> list[Any]:
    try:
        return [value] if isinstance(value, str) else list(value)
    except TypeError:
        raise ConfigurationError(f"{name}={value!r}: give a text or a list of texts.") from None


def _texts(name: str, value: Any) -> list[str]:
    found = _list(name, value)
    for each in found:
        if not isinstance(each, str) or not each.strip():
            raise ConfigurationError(f"{name}: {each!r} is not a text, or is empty.")
    return found


def _as_json(name: str, value: Any) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_json_default)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name}: it cannot be written as JSON ({error}).") from None


def _json_default(value: Any) -> Any:
    geometry = getattr(value, "__geo_interface__", None)
    if isinstance(geometry, Mapping):
        return geometry
    if isinstance(value, datetime):
        return _instant(_aware(value))
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not JSON")


def search_body(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return query parameters as the body of a search with POST.

    Source: STAC API specification, "Item Search", and its extensions.
    """
    body: dict[str, Any] = dict(parameters)
    for name in {"collections", "ids", "q", "bbox", "sortby", "fields"} & parameters.keys():
        body[name] = parameters[name].split(",")
    for name in {"query", "intersects"} & parameters.keys():
        body[name] = json.loads(parameters[name])
    if parameters.get("filter-lang") == "cql2-json":
        body["filter"] = json.loads(parameters["filter"])
    if "limit" in body:
        body["limit"] = int(body["limit"])
    if "bbox" in body:
        body["bbox"] = [*map(float, body["bbox"])]
    if "sortby" in body:
        body["sortby"] = [
            {"field": key.lstrip("+-"), "direction": "desc" if key.startswith("-") else "asc"}
            for key in body["sortby"]
        ]
    if "fields" in body:
        excluded = [name.removeprefix("-") for name in body["fields"] if name.startswith("-")]
        included = [name for name in body["fields"] if not name.startswith("-")]
        body["fields"] = {"include": included, "exclude": excluded}
    return body
