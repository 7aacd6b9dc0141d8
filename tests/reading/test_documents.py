"""Bytes become documents that pystac can be trusted with, or an error that says what is wrong."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import pystac
import pytest

from stac_gitlab import InvalidResponseError, Limits, STACGitLabError
from stac_gitlab.reading import documents
from stac_gitlab.reading.documents import check_stac, parse_json
from stac_gitlab.redaction import redact_document, redact_text, remember_secrets

URL = "https://hub.example.org/item"
TOKEN = "glpat-Zx81-secret"


@pytest.fixture(autouse=True, params=["orjson", "json"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with orjson, and as where it is not installed."""
    name: str = request.param
    if name == "json":
        monkeypatch.setattr(documents, "orjson", None)
    return name


def parsed(body: bytes) -> dict[str, Any]:
    return parse_json(body, url=URL)


def redacted_with(secrets: Iterable[str], body: bytes) -> dict[str, Any]:
    remember_secrets(secrets)
    return redact_document(parsed(body), body, url=URL)


def refused(body: bytes) -> InvalidResponseError:
    with pytest.raises(InvalidResponseError) as caught:
        parsed(body)
    assert str(caught.value).startswith(f"{URL}: ")
    assert caught.value.url == URL
    return caught.value


# -- JSON -----------------------------------------------------------------------------------


def test_an_object_is_read_whatever_its_letters() -> None:
    assert parsed('{"é": "日本", "x": "\\u00e9"}'.encode()) == {"é": "日本", "x": "é"}


def test_a_byte_order_mark_is_skipped() -> None:
    assert parsed(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_the_last_of_two_equal_keys_counts() -> None:
    assert parsed(b'{"a": 1, "a": 2}') == {"a": 2}


def test_nan_and_infinity_are_read_as_python_does() -> None:
    document = parsed(b'{"a": NaN, "b": Infinity}')
    assert document["a"] != document["a"]
    assert document["b"] == float("inf")


def test_a_number_beyond_64_bits_is_read() -> None:
    assert parsed(b'{"a": 123456789012345678901234567890}')["a"] == pytest.approx(1.2345678901e29)


def test_a_number_of_ten_thousand_digits_is_an_error() -> None:
    assert "JSON that cannot be read" in str(refused(b'{"a": ' + b"9" * 10_000 + b"}"))


@pytest.mark.parametrize("inside", ["1", "", "{}", "18446744073709551616", '"\\ud800"', "NaN"])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_nesting_is_an_error_beyond_the_limit_and_not_before(inside: str, brackets: str) -> None:
    def nested(depth: int) -> bytes:
        # The document itself is a level, and so is the innermost list.
        opening, closing = ("[", "]") if brackets == "[]" else ('{"a": ', "}")
        return f'{{"a": {opening * (depth - 2)}[{inside}]{closing * (depth - 2)}}}'.encode()

    at_most = Limits().nesting - (inside == "{}")
    parsed(nested(at_most))
    for depth in (at_most + 1, at_most + 2, 253, 254, 255, 256, 600):
        with pytest.raises(InvalidResponseError, match="nested too deeply"):
            parsed(nested(depth))


def test_many_deep_parts_take_no_longer_than_as_many_brackets_in_shallow_ones() -> None:
    def seconds(depth: int) -> float:
        part = b'"":' + b"[" * depth + b"]" * depth + b","
        body = b"{" + part * (2**22 // len(part)) + b'"last": 1}'
        began = time.process_time()
        parsed(body)
        return time.process_time() - began

    assert min(seconds(126) for _ in range(2)) < 4 * min(seconds(10) for _ in range(2))


@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_deep_nesting_is_an_error(depth: int) -> None:
    body = b'{"a": ' + b"[" * depth + b"]" * depth + b', "b": "?gitlab_token=x"}'
    with pytest.raises(InvalidResponseError, match="nested too deeply"):
        redacted_with((), body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[1, 2]", "a list where an object was expected"),
        (b'"text"', "a text where"),
        (b"12", "a number where"),
        (b"null", "null where"),
        (b"true", "a truth value where"),
        (b"<?xml version='1.0'?><a/>", "begins with \"<?xml version='1.0'?><a/>\""),
        (b"Internal Server Error", "begins with 'Internal Server Error'"),
        (b'{"a": 1} trailing', "not JSON (Extra data"),
        (b"{'a': 1}", "not JSON (Expecting property name"),
        (b'{"a": "\xff"}', "not UTF-8 (at byte 7)"),
    ],
)
def test_what_is_no_json_object_is_an_error_that_says_what_came(body: bytes, said: str) -> None:
    error = refused(body)
    assert said in str(error)
    assert not error.truncated


@pytest.mark.parametrize("body", [b"", b" \n", b"\xef\xbb\xbf"])
def test_an_empty_answer_counts_as_cut_short(body: bytes) -> None:
    error = refused(body)
    assert "empty" in str(error)
    assert error.truncated


def test_json_that_ends_anywhere_in_the_middle_counts_as_cut_short() -> None:
    whole = '{"a": [1.5, true, null, "é\\u00e9\\n日"], "b": {"c": -2}}'.encode()
    for end in range(1, len(whole)):
        assert refused(whole[:end]).truncated, whole[:end]


# -- secrets --------------------------------------------------------------------------------


def cleaned(text: str) -> str:
    body = json.dumps({"a": [{"b": text}]}).encode()
    found = redacted_with([TOKEN], body)["a"][0]["b"]
    assert TOKEN not in found
    assert redact_text(text) == found
    return str(found)


@pytest.mark.parametrize(
    ("written", "left"),
    [
        (f"https://h/f?gitlab_token={TOKEN}", "https://h/f"),
        (f"https://h/f?gitlab_token={TOKEN}&ref=main", "https://h/f?ref=main"),
        (f"https://h/f?ref=main&gitlab_token={TOKEN}", "https://h/f?ref=main"),
        (f"https://h/f?a=1&gitlab_token={TOKEN}&b=2", "https://h/f?a=1&b=2"),
        (f"https://h/f?a=1&gitlab_token={TOKEN}#part", "https://h/f?a=1#part"),
        (f"https://h/f?a=1&GitLab_Token={TOKEN}", "https://h/f?a=1"),
        (f"https://h/f?gitlab_token={TOKEN}&gitlab_token=other&x=1", "https://h/f?x=1"),
        (f"a&amp;gitlab_token={TOKEN}&amp;b=2", "a&amp;b=2"),
        (f"?gitlab_token={TOKEN}&amp;b=2", "?b=2"),
        (f"https://h/?url=x%3Fgitlab_token%3D{TOKEN}%26b%3D2", "https://h/?url=x%3Fb%3D2"),
        (f"![a](https://h/a.png?gitlab_token={TOKEN}) text", "![a](https://h/a.png) text"),
        (f'<img src="/x.png?ref=a&gitlab_token={TOKEN}">', '<img src="/x.png?ref=a">'),
    ],
)  # fmt: skip
def test_the_token_parameter_is_removed_and_its_neighbours_stay(written: str, left: str) -> None:
    assert cleaned(written) == left


def test_a_known_secret_is_masked_wherever_it_stands() -> None:
    assert cleaned(f"see {TOKEN}!") == "see ***!"


def test_a_secret_that_needs_escapes_is_masked_in_every_spelling() -> None:
    secret = "ab/cd+ef=gh"
    body = rb'{"a": "ab\/cd+ef=gh", "b": "x?y=ab%2Fcd%2Bef%3Dgh", "c": "\u0061b/cd+ef=gh"}'
    assert redacted_with([secret], body) == {
        "a": "***",
        "b": "x?y=***",
        "c": "***",
    }


@pytest.mark.parametrize(
    "spelled", ["%67lpat%2Dsecret-token", "glpat%252dsecret-token", "&#x67;lpat&#45;secret-token"]
)
def test_a_secret_is_masked_although_nothing_in_it_needs_an_escape(spelled: str) -> None:
    body = json.dumps({"a": f"https://hub.example.org/x?t={spelled}"}).encode()
    assert redacted_with(["glpat-secret-token"], body) == {"a": "https://hub.example.org/x?t=***"}


def test_a_token_parameter_behind_json_escapes_is_removed() -> None:
    body = rb'{"a": "https:\/\/h\/f?\u0067itlab\u005ftoken=abc&b=1"}'
    assert redacted_with([], body) == {"a": "https://h/f?b=1"}


def test_keys_are_cleaned_like_values() -> None:
    body = json.dumps({f"k?gitlab_token={TOKEN}": {TOKEN: 1}}).encode()
    assert redacted_with([TOKEN], body) == {"k": {"***": 1}}


def test_cleaning_keeps_the_order_of_keys() -> None:
    body = json.dumps(
        {"z": TOKEN, f"k?gitlab_token={TOKEN}": 1, "a": [{"b": f"x {TOKEN}"}]}
    ).encode()
    found = redacted_with([TOKEN], body)
    assert list(found.items()) == [("z", "***"), ("k", 1), ("a", [{"b": "x ***"}])]


def test_a_document_without_secrets_stays_the_very_object() -> None:
    body = b'{"a": {"b": ["c"]}}'
    document = parsed(body)
    assert redact_document(document, body, url=URL) is document


def test_short_values_are_not_masked_because_they_occur_by_accident() -> None:
    body = b'{"a": "a cat and a dog"}'
    assert redacted_with(["cat"], body) == {"a": "a cat and a dog"}


# -- STAC -----------------------------------------------------------------------------------

ITEM: dict[str, Any] = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "stac_extensions": [],
    "id": "group/lakes",
    "geometry": None,
    "bbox": [0, 0, 1, 1],
    "collection": "dataset",
    "properties": {"datetime": "2024-01-01T00:00:00Z"},
    "links": [{"rel": "self", "href": "https://h/i"}, {"rel": "root", "href": "https://h"}],
    "assets": {"data": {"href": "https://h/f", "roles": ["data"]}},
}
COLLECTION: dict[str, Any] = {
    "type": "Collection",
    "stac_version": "1.0.0",
    "id": "dataset",
    "description": "Datasets",
    "license": "other",
    "extent": {
        "spatial": {"bbox": [[-180, -90, 180, 90]]},
        "temporal": {"interval": [[None, None]]},
    },
    "links": [{"rel": "root", "href": "https://h"}],
}


def broken(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    *way, last = path.split("/")
    holder: Any = document
    for step in way:
        holder = holder[int(step) if step.isdigit() else step]
    if value is ...:
        del holder[last]
    else:
        holder[int(last) if last.isdigit() else last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("stac_version", ..., "stac_version is missing"),
        ("stac_version", 1.0, "stac_version is a number"),
        ("stac_extensions", 5, "stac_extensions is a number"),
        ("properties", ..., "properties is missing"),
        ("properties", [], "properties is a list"),
        ("properties/datetime", 2024, "properties.datetime is a number"),
        ("properties/datetime", None, "properties.datetime is null, and start_datetime"),
        ("links", {"self": "https://h"}, "links is an object"),
        ("links/1", "https://h", "links[1] is a text"),
        ("links/1/rel", ..., "links[1].rel is missing"),
        ("links/1/href", ..., "links[1].href is missing"),
        ("links/1/href", 5, "links[1].href is a number"),
        ("links/1/href", "http://[h", "links[1].href is no URL"),
        ("assets", [], "assets is a list"),
        ("assets/data", None, "assets['data'] is null"),
        ("assets/data/href", ..., "assets['data'].href is missing"),
        ("assets/data/href", True, "assets['data'].href is a truth value"),
    ],
)
def test_a_broken_item_is_an_error_that_names_the_field(path: str, value: Any, named: str) -> None:
    check_stac(ITEM, url=URL)
    item = broken(ITEM, path, value)
    with pytest.raises(InvalidResponseError) as caught:
        check_stac(item, url=URL)
    assert named in str(caught.value)
    assert URL in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("id", True, "id is a truth value"),
        ("description", ..., "description is missing"),
        ("links", ..., "links is missing"),
        ("extent/spatial", [], "extent.spatial is a list"),
        ("extent/spatial/bbox", ..., "extent.spatial.bbox is missing"),
        ("extent/temporal", None, "extent.temporal is null"),
        ("extent/temporal/interval", "2024", "extent.temporal.interval is a text"),
    ],
)
def test_a_broken_collection_is_an_error_that_names_the_field(
    path: str, value: Any, named: str
) -> None:
    check_stac(COLLECTION, url=URL)
    with pytest.raises(InvalidResponseError) as caught:
        check_stac(broken(COLLECTION, path, value), url=URL)
    assert path == "id" or "id 'dataset'" in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("document", "path", "value"),
    [
        (ITEM, "id", 5),
        (ITEM, "id", "/abs"),
        (ITEM, "geometry", "POINT (1 2)"),
        (ITEM, "bbox", {}),
        (ITEM, "collection", 5),
        (ITEM, "links", {}),
        (ITEM, "links/1/type", 5),
        (ITEM, "assets/data/roles", "data"),
        (COLLECTION, "keywords", "lakes"),
        (COLLECTION, "description", None),
        (COLLECTION, "extent", ...),
        (COLLECTION, "extent", None),
    ],
)
@pytest.mark.filterwarnings("ignore:Collection is missing extent")
def test_what_pystac_stores_without_a_look_may_have_any_type(
    document: dict[str, Any], path: str, value: Any
) -> None:
    document = broken(document, path, value)
    check_stac(document, url=URL)
    cls = pystac.Item if document["type"] == "Feature" else pystac.Collection
    assert cls.from_dict(document, href="https://h/x").to_dict(transform_hrefs=False)


def test_assets_of_old_collections_need_no_href() -> None:
    templates = {**COLLECTION, "stac_version": "0.9.0", "assets": {"a": {"title": "A"}}}
    check_stac(templates, url=URL)
    with pytest.raises(InvalidResponseError, match="href is missing"):
        check_stac({**templates, "stac_version": "1.0.0"}, url=URL)


@pytest.mark.parametrize("body", [b'{"a": [0,0,0,0]}', b'{"a": [{},[],0]}', b'{"a": 0, "b": [[]]}'])
def test_a_document_with_too_many_values_is_not_parsed(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse_json(body, url=URL, limits=Limits(members=6))
    monkeypatch.setattr(documents, "_loads", None)
    with pytest.raises(InvalidResponseError, match=r"more than 3 values.*Limits\(members=\)"):
        parse_json(body, url=URL, limits=Limits(members=3))


@pytest.mark.parametrize(
    "properties",
    [
        {"datetime": None, "start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-02-01"},
        {"datetime": None, "dtr:start_datetime": "2024", "dtr:end_datetime": "2025"},
    ],
)
def test_a_range_stands_in_for_a_datetime(properties: dict[str, Any]) -> None:
    check_stac({**ITEM, "properties": properties}, url=URL)


@pytest.mark.parametrize(
    "document",
    [
        {"conformsTo": []},
        {"$schema": "http://json-schema.org/draft-07/schema#", "id": 5, "type": "object"},
        {"type": "Feature", "id": 5, "geometry": None, "properties": None},
        {"type": "FeatureCollection", "features": []},
        {},
    ],
)
def test_what_does_not_claim_to_be_stac_passes(document: dict[str, Any]) -> None:
    check_stac(document, url=URL)


@pytest.mark.parametrize(("field", "value"), [("features", {}), ("links", 5)])
def test_a_page_with_broken_lists_is_an_error(field: str, value: Any) -> None:
    page = {"type": "FeatureCollection", "features": [], "links": [], field: value}
    with pytest.raises(InvalidResponseError, match=field):
        check_stac(page, url=URL)


def every_break(document: dict[str, Any], *values: Any) -> Iterator[dict[str, Any]]:
    def places(value: Any, prefix: str = "") -> Iterator[str]:
        inner = enumerate(value) if isinstance(value, list) else ()
        for key, below in value.items() if isinstance(value, dict) else inner:
            yield f"{prefix}{key}"
            yield from places(below, f"{prefix}{key}/")

    for place in places(document):
        for value in values:
            if value is not ... or not place.rpartition("/")[2].isdigit():
                yield broken(document, place, value)


@pytest.mark.parametrize("document", [ITEM, COLLECTION])
def test_whatever_is_broken_nothing_but_our_error_is_raised(document: dict[str, Any]) -> None:
    count = 0
    for each in every_break(document, ..., None, 5, True, "", "x", [], {}, [None], [5], {"a": 1}):
        count += 1
        with suppress(STACGitLabError):
            check_stac(each, url=URL)
    assert count > 100


def test_the_beginning_that_an_error_shows_holds_no_secret() -> None:
    remember_secrets(["canary-x9x9x9"])
    body = b"hello canary-x9x9x9 \x1b[31m and https://h/x?gitlab_token=other-canary&a=1"
    with pytest.raises(InvalidResponseError) as caught:
        parse_json(body, url="https://h/x")
    assert "canary" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("form", ['pass"word\\x&y', "pass&quot;word\\x&amp;y"])
def test_a_secret_with_special_characters_is_redacted_in_documents(form: str) -> None:
    body = json.dumps({"a": form, form: [form]}).encode()
    assert redacted_with(['pass"word\\x&y'], body) == {"a": "***", "***": ["***"]}


def test_what_a_text_begins_with_is_not_cut_in_the_middle_of_a_secret() -> None:
    remember_secrets([TOKEN])
    with pytest.raises(InvalidResponseError, match="begins with") as caught:
        parsed(b"x" + b" " * (8192 - 9) + TOKEN.encode())
    assert "glpat" not in str(caught.value)
