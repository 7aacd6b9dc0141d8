"""Filters with a certain mistake are refused; the grammar of the others is left to the server."""

from __future__ import annotations

from typing import Any

import pytest

from stac_gitlab import ConfigurationError
from stac_gitlab.api.filters import filter_parameters


@pytest.mark.parametrize(
    "text",
    [
        "\"quoted (name\" <> 'it''s' or not (a > -1.5e3)",
        r"title = 'it\'s'",
        "S_INTERSECTS(geometry, POLYGON((0 0, 1 0, 1 1, 0 0)))",
        "a ==",
    ],
)
def test_text_is_sent_as_it_is(text: str) -> None:
    assert filter_parameters(text) == {"filter": text, "filter-lang": "cql2-text"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a = 'x", "a quote is not closed"),
        ('"a = 1', "a quote is not closed"),
        ("(a = 1", "parentheses do not match"),
        ("a = ')'", None),
        ("a = 1)", "parentheses do not match"),
        ([], "as a text, or as JSON"),
        (5, "as a text, or as JSON"),
        ("{", "not JSON"),
        ({}, "needs an 'op'"),
        ({"eq": [1, 2]}, "needs an 'op'"),
        ({"op": "my_function", "args": []}, None),
    ],
)
def test_only_certain_mistakes_are_refused(value: Any, message: str | None) -> None:
    if message is None:
        assert filter_parameters(value)
    else:
        with pytest.raises(ConfigurationError, match=message):
            filter_parameters(value)
