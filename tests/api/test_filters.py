"""What people filter by becomes what the specification wants, or an error that says why not."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from stac_gitlab import ConfigurationError
from stac_gitlab.api.filters import (
    bbox_parameter,
    datetime_parameter,
    fields_parameter,
    filter_parameters,
    free_text_parameter,
    ids_parameter,
    other_parameter,
    query_parameter,
    sortby_parameter,
)

# -- where ----------------------------------------------------------------------------------

TRIANGLE = {"type": "Polygon", "coordinates": [[[5, 46], [8.5, 47], [6, 45], [5, 46]]]}
POINT = {"type": "Point", "coordinates": [9, 9]}
FIJI = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[177, -19], [180, -19], [180, -16], [177, -19]]],
        [[[-180, -19], [-178, -19], [-180, -16], [-180, -19]]],
    ],
}
FEATURE = {"type": "Feature", "geometry": TRIANGLE, "properties": {}}


@pytest.mark.parametrize(
    ("value", "formed"),
    [
        ([5, 46, 8, 47.4], "5,46,8,47.4"),
        ((5.0, 46.0, 8.0, 47.0), "5,46,8,47"),
        ("5, 46,8,47.40", "5,46,8,47.4"),
        (iter(["5", "46", "8", "47"]), "5,46,8,47"),
        ([160.6, -55.95, -170, -25.89], "160.6,-55.95,-170,-25.89"),
        ([5, 46, 0, 8, 47, 900.5], "5,46,0,8,47,900.5"),
        (TRIANGLE, "5,45,8.5,47"),
        (SimpleNamespace(__geo_interface__=TRIANGLE), "5,45,8.5,47"),
        ({"type": "Point", "coordinates": [6.5, 49.5, 237]}, "6.5,49.5,6.5,49.5"),
        (FEATURE, "5,45,8.5,47"),
        ({"type": "FeatureCollection", "features": [FEATURE, FEATURE]}, "5,45,8.5,47"),
        ({"type": "GeometryCollection", "geometries": [TRIANGLE, POINT]}, "5,9,9,47"),
        (SimpleNamespace(__geo_interface__={"type": "Point", "coordinates": (1, 2)}), "1,2,1,2"),
        (FIJI, "177,-19,-178,-16"),
        ({"type": "MultiPoint", "coordinates": [[-180, 0], [180, 1]]}, "180,0,-180,1"),
        ({"type": "LineString", "coordinates": [[-180, 0], [180, 1]]}, "-180,0,180,1"),
    ],
)  # fmt: skip
def test_a_bounding_box_is_numbers_in_any_wrapping_or_that_of_a_geometry(
    value: Any, formed: str
) -> None:
    assert bbox_parameter(value) == formed


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([5, 46, 8], "3 numbers"),
        ([5, 46, 8, 47, 9], "5 numbers"),
        ([], "0 numbers"),
        (5, "as numbers, or a geometry"),
        ("west", "as numbers, or a geometry"),
        ([5, 46, None, 47], "as numbers, or a geometry"),
        ([5, 47, 8, 46], "lies north of the north"),
        ([46, 5, 47, 100], "Longitude comes first"),
        ([-181, 0, 0, 0], "between -180 and 180"),
        ([5, 46, 9, 8, 47, 1], "lowest height"),
        ([float("nan"), 46, 8, 47], "not all of these are numbers"),
        ([5, 46, float("inf"), 47], "not all of these are numbers"),
        ({}, "without a single position"),
        ({"type": "Polygon", "coordinates": []}, "without a single position"),
        ({"type": "Feature", "geometry": None}, "without a single position"),
        ({"type": "Point", "coordinates": [5]}, "not lists of positions"),
        ({"type": "Point", "coordinates": 5}, "not lists of positions"),
        ({"type": "Point", "coordinates": [460000, 5200000]}, "between -180 and 180"),
    ],
)
def test_what_is_no_bounding_box_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        bbox_parameter(value)


# -- when -----------------------------------------------------------------------------------

EAST = timezone(timedelta(hours=2))
NAIVE = datetime(2024, 1, 1, 12)  # noqa: DTZ001  # people do write it so


@pytest.mark.parametrize(
    ("value", "formed"),
    [
        ("2024", "2024-01-01T00:00:00Z/2024-12-31T23:59:59Z"),
        ("2024-02", "2024-02-01T00:00:00Z/2024-02-29T23:59:59Z"),
        ("2024-12", "2024-12-01T00:00:00Z/2024-12-31T23:59:59Z"),
        ("9999", "9999-01-01T00:00:00Z/9999-12-31T23:59:59Z"),
        ("0001/9999-12-31", "0001-01-01T00:00:00Z/9999-12-31T23:59:59Z"),
        ("2024-02-03", "2024-02-03T00:00:00Z/2024-02-03T23:59:59Z"),
        ("2024-01/2024-03", "2024-01-01T00:00:00Z/2024-03-31T23:59:59Z"),
        ("2023/2024-05-06", "2023-01-01T00:00:00Z/2024-05-06T23:59:59Z"),
        ("2024-01-01T12:00:00Z", "2024-01-01T12:00:00Z"),
        ("2024-01-01t12:00:00z", "2024-01-01T12:00:00Z"),
        ("2024-01-01 12:00:00", "2024-01-01T12:00:00Z"),
        ("2024-01-01T12:00:00.5+02:00", "2024-01-01T10:00:00.500000Z"),
        ("2024-01-01T12:00:00.123456789Z", "2024-01-01T12:00:00.123456Z"),
        ("2024-01-01T00:00:00Z/..", "2024-01-01T00:00:00Z/.."),
        ("../2024-01", "../2024-01-31T23:59:59Z"),
        ("/2024-01", "../2024-01-31T23:59:59Z"),
        ("2024-01/", "2024-01-01T00:00:00Z/.."),
        (NAIVE, "2024-01-01T12:00:00Z"),
        (datetime(2024, 1, 1, 12, tzinfo=EAST), "2024-01-01T10:00:00Z"),
        (date(2024, 1, 1), "2024-01-01T00:00:00Z/2024-01-01T23:59:59Z"),
        ([NAIVE, None], "2024-01-01T12:00:00Z/.."),
        ((None, "2024-01"), "../2024-01-31T23:59:59Z"),
        (["2024-01", ".."], "2024-01-01T00:00:00Z/.."),
        (iter(["2024-01", date(2024, 2, 1)]), "2024-01-01T00:00:00Z/2024-02-01T23:59:59Z"),
        (["2024"], "2024-01-01T00:00:00Z/2024-12-31T23:59:59Z"),
        (["2024-01-01T00:00:00Z"] * 2, "2024-01-01T00:00:00Z/2024-01-01T00:00:00Z"),
    ],
)  # fmt: skip
def test_times_are_instants_and_intervals_in_utc(value: Any, formed: str) -> None:
    assert datetime_parameter(value) == formed


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("yesterday", "'2024-01'"),
        ("", "open end belongs to an interval"),
        ("..", "open end belongs to an interval"),
        ("../..", "at least one end"),
        ([None, None], "at least one end"),
        ([None], "open end belongs to an interval"),
        ([], "two ends"),
        ("2024/2025/2026", "has 3"),
        ("2025/2024", "ends before it begins"),
        ("2024-13", "month must be in 1..12"),
        ("2024-02-30", "day"),
        ("2024-01-01T25:00:00Z", "hour must be in 0..23"),
        (5, "'2024-01'"),
        ([5, 6], "'2024-01'"),
        ({"gte": "2024"}, "'2024-01'"),
    ],
)
def test_what_is_no_time_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        datetime_parameter(value)


def test_a_time_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="years 1 to 9999"):
        datetime_parameter("9999-12-31T23:59:59-05:00")


# -- which, and how ---------------------------------------------------------------------------


def test_ids_are_taken_once_each_and_in_order() -> None:
    assert ids_parameter(["b", "a", "b"]) == ("b", "a")
    assert ids_parameter("a,b") == ("a,b",), "a comma may be part of an id"


@pytest.mark.parametrize("value", [[], [5], [""], 5])
def test_what_is_no_id_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="ids"):
        ids_parameter(value)


@pytest.mark.parametrize(
    ("value", "formed"),
    [
        ("+a,-b", "a,-b"),
        (["a", "-properties.b"], "a,-properties.b"),
        ([{"field": "a", "direction": "desc"}, {"field": "b"}], "-a,b"),
        ({"field": "a", "direction": "asc"}, "a"),
    ],
)
def test_sortby_is_names_with_a_sign(value: Any, formed: str) -> None:
    assert sortby_parameter(value) == formed


@pytest.mark.parametrize(
    "value", ["", "a,", "-", [], [5], 5, {"field": "a", "direction": "down"}, {"direction": "asc"}]
)
def test_what_cannot_be_sorted_by_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="sortby"):
        sortby_parameter(value)


@pytest.mark.parametrize(
    ("value", "formed"),
    [
        ("id,-assets", "id,-assets"),
        (["+id", "properties.datetime"], "id,properties.datetime"),
        ({"include": ["id"], "exclude": ["assets"]}, "id,-assets"),
        ({"exclude": ["assets"]}, "-assets"),
    ],
)
def test_fields_are_names_to_include_and_exclude(value: Any, formed: str) -> None:
    assert fields_parameter(value) == formed


@pytest.mark.parametrize("value", ["", [], {}, {"only": ["id"]}, ["-"], 5, [5]])
def test_what_names_no_fields_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="fields"):
        fields_parameter(value)


JSON = {"op": "<", "args": [{"property": "eo:cloud_cover"}, 10]}


def test_a_filter_goes_under_the_name_of_its_language() -> None:
    text = filter_parameters("eo:cloud_cover < 10")
    assert text == {"filter": "eo:cloud_cover < 10", "filter-lang": "cql2-text"}
    for value in (JSON, json.dumps(JSON)):
        formed = filter_parameters(value)
        assert formed["filter-lang"] == "cql2-json"
        assert json.loads(formed["filter"]) == JSON


def test_geometries_and_times_in_a_filter_are_written_as_json() -> None:
    point = SimpleNamespace(__geo_interface__={"type": "Point", "coordinates": (1, 2)})
    times = {"op": "t_after", "args": [{"property": "datetime"}, {"date": date(2024, 1, 1)}]}
    whole = {
        "op": "and",
        "args": [{"op": "s_intersects", "args": [{"property": "g"}, point]}, times],
    }
    formed = json.loads(filter_parameters(whole)["filter"])
    assert formed["args"][0]["args"][1] == {"type": "Point", "coordinates": [1, 2]}
    assert formed["args"][1]["args"][1] == {"date": "2024-01-01"}


@pytest.mark.parametrize(
    ("value", "lang", "said"),
    [
        ("a = 1", "cql", "choose 'cql2-text'"),
        ("a = 1", "cql2-json", "another kind"),
        (JSON, "cql2-text", "another kind"),
        (5, None, "CQL2 as a text"),
        (None, "cql2-text", "without a filter"),
        ("{", None, "not JSON"),
        ({"op": "=", "args": [1, object()]}, None, "cannot be written as JSON"),
        ({"op": "=", "args": [1, float("nan")]}, None, "cannot be written as JSON"),
    ],
)
def test_a_filter_that_is_not_what_it_is_called_is_refused(
    value: Any, lang: str | None, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        filter_parameters(value, lang)


def test_a_query_is_json_also_where_it_was_written_as_comparisons() -> None:
    assert json.loads(query_parameter({"a": {"lt": 10}})) == {"a": {"lt": 10}}
    written = query_parameter(["eo:cloud_cover<10", "eo:cloud_cover >= 2", "platform=a b"])
    assert json.loads(written) == {
        "eo:cloud_cover": {"lt": 10, "gte": 2},
        "platform": {"eq": "a b"},
    }
    assert query_parameter("a<>1") == '{"a":{"neq":1}}'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": 5}, "wants a comparison"),
        ({"a": {}}, "wants a comparison"),
        ({"a": {"less": 5}}, "none of"),
        (["a"], "no comparison"),
        ({}, "empty"),
        (5, "query"),
    ],
)
def test_a_query_that_compares_nothing_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        query_parameter(value)


def test_words_to_search_for_are_joined() -> None:
    assert free_text_parameter("deep lakes") == "deep lakes"
    assert free_text_parameter(["deep", "lakes"]) == "deep,lakes"
    for nothing in ("", [], [""], [5]):
        with pytest.raises(ConfigurationError, match="q"):
            free_text_parameter(nothing)


def test_parameters_of_a_server_are_written_as_urls_write_them() -> None:
    assert other_parameter("a", True) == "true"
    assert other_parameter("a", 5) == "5"
    assert other_parameter("a", [1, "b"]) == "1,b"
    assert other_parameter("a", {"b": 1}) == '{"b":1}'
    with pytest.raises(ConfigurationError, match="a="):
        other_parameter("a", object())
