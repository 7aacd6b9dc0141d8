"""Filters that no server could understand are refused; all others pass."""

from __future__ import annotations

from typing import Any

import pytest

from stac_gitlab import ConfigurationError
from stac_gitlab.api.filters import check_cql2_json, check_cql2_text


@pytest.mark.parametrize(
    "text",
    [
        "id = 'a'",
        "eo:cloud_cover<10",
        "properties.eo:cloud_cover <= 10 AND platform LIKE 'sentinel-2%'",
        "\"quoted name\" <> 'it''s' or not (a > -1.5e3)",
        "a BETWEEN 1 AND 5 AND b NOT BETWEEN 2 AND 3",
        "a in ('x', 'y') AND b NOT IN (1, 2)",
        "a IS NULL or b is not null",
        "NOT a = 1",
        "casei(title) = casei('Lake')",
        "a + 2 * (b - 3) ^ 2 > c % 4",
        "T_INTERSECTS(datetime, INTERVAL('2024-01-01T00:00:00Z', '..'))",
        "datetime >= TIMESTAMP('2024-01-01T00:00:00Z')",
        "S_INTERSECTS(geometry, POLYGON((0 0, 1 0, 1 1, 0 0)))",
        "s_intersects(geometry, POINT Z (1 2 3)) and vehicles div 2 = 3",
        "S_WITHIN(geometry, GEOMETRYCOLLECTION(POINT(1 2), LINESTRING(0 0, 1 1)))",
        "is_good = true",
        "höhe > 5",
        "point > 5",
        "avg()",
    ],
)
def test_filters_of_the_standard_pass(text: str) -> None:
    check_cql2_text(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a ==", "use '='"),
        ("a == 1", "use '='"),
        ("a != 1", "use '<>'"),
        ("a = 1 && b = 2", "use 'AND'"),
        ("a = 1 || b = 2", "use 'OR'"),
        ("a = 'x", "a text in ' opens"),
        ('"a = 1', 'a name in " opens'),
        ("(a = 1", "a bracket opens, and does not close, at character 1"),
        ("a = 1)", "was not opened"),
        ("a <", "missing after '<'"),
        ("AND a = 1", "missing before 'AND'"),
        ("a = 1 AND", "missing after 'AND'"),
        ("a = = 1", "missing before '='"),
        ("a 1", "operator is missing between 'a' and '1'"),
        ("a = 1 b = 2", "operator is missing between '1' and 'b'"),
        ("a = 1 (b = 2)", "operator is missing between '1' and '\\('"),
        ("(a = )", "missing after '='"),
        ("a in (1, )", "missing after ','"),
        ("a IS 5", "after IS comes NULL"),
        ("a = NULL", "NULL stands after IS"),
        ("a NOT = 5", "before LIKE, BETWEEN or IN"),
        ("a = #", "'#' belongs to nothing"),
        ("S_INTERSECTS(geometry, POINT(1 2)", "a bracket opens"),
        ("POINT(1 2", "a bracket opens"),
        ("a = {x}", "belongs to nothing"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_cql2_text(text)


@pytest.mark.parametrize(
    "value",
    [
        {"op": "=", "args": [{"property": "id"}, "a"]},
        {"op": "and", "args": [{"op": "isNull", "args": [{"property": "a"}]}, True]},
        {"op": "in", "args": [{"property": "a"}, [1, 2]]},
        {"op": "between", "args": [{"property": "a"}, 1, 2]},
        {"op": "my_function", "args": []},
        {"op": "s_within", "args": [{"property": "g"}, {"type": "Point", "coordinates": []}]},
    ],
)  # fmt: skip
def test_json_of_the_standard_passes(value: Any) -> None:
    check_cql2_json(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "an object such as"),
        ([], "an object such as"),
        ("a", "an object such as"),
        ({"eq": [1, 2]}, r"no 'op' among \['eq'\]"),
        ({"op": 5, "args": []}, "is no text"),
        ({"op": "==", "args": [1, 2]}, "use '='"),
        ({"op": "="}, "no list"),
        ({"op": "=", "args": [1]}, "takes 2 arguments, not 1"),
        ({"op": "and", "args": [True]}, "takes 2 or more arguments"),
        ({"op": "not", "args": [{"op": "like", "args": ["a"]}]}, "'like' takes 2"),
        ({"op": "in", "args": [{"property": "a"}, 5]}, "second argument of 'in'"),
        ({"op": "in", "args": [{"property": "a"}, [{"op": "not", "args": []}]]}, "'not' takes 1"),
    ],
)
def test_what_is_wrong_with_json_is_said(value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        check_cql2_json(value)
