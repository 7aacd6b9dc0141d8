"""Selecting assets by role, media type and key."""

from __future__ import annotations

from typing import Any

import pystac
import pytest

from stac_gitlab.download.assets import (
    asset_roles,
    assets_with_role,
    data_assets,
    filter_assets,
    group_by_role,
    has_any_role,
)
from stac_gitlab.errors import ConfigurationError


def asset(roles: Any = None, media_type: str | None = None) -> pystac.Asset:
    return pystac.Asset("https://hub.example.org/x", roles=roles, media_type=media_type)


@pytest.fixture
def collection() -> pystac.Collection:
    found = pystac.Collection("lakes", "Lakes", extent=pystac.Extent.from_dict(EXTENT))
    found.add_asset("data/train.csv", asset(["data"], "text/csv"))
    found.add_asset("data/test.csv", asset(["data", "test"], "text/csv; charset=utf-8"))
    found.add_asset("cog.tif", asset(["data", "visual"], pystac.MediaType.COG))
    found.add_asset("README.md", asset(["metadata"], "text/markdown"))
    found.add_asset("thumb.png", asset(["thumbnail"], "image/png"))
    found.add_asset("unknown", asset())
    return found


EXTENT = {
    "spatial": {"bbox": [[-180, -90, 180, 90]]},
    "temporal": {"interval": [["2020-01-01T00:00:00Z", None]]},
}


def test_without_conditions_all_assets_are_returned_in_order(
    collection: pystac.Collection,
) -> None:
    assert list(filter_assets(collection)) == list(collection.assets)
    assert filter_assets(collection)["cog.tif"] is collection.assets["cog.tif"]


def test_the_returned_dictionary_is_a_copy(collection: pystac.Collection) -> None:
    filter_assets(collection).clear()
    assert collection.assets


@pytest.mark.parametrize(
    ("roles", "keys"),
    [
        ("data", ["data/train.csv", "data/test.csv", "cog.tif"]),
        (["data"], ["data/train.csv", "data/test.csv", "cog.tif"]),
        (("thumbnail", "metadata"), ["README.md", "thumb.png"]),
        ({"nothing has this"}, []),
        ([], []),
        ("dat", []),
    ],
)
def test_an_asset_needs_any_of_the_roles(
    collection: pystac.Collection, roles: Any, keys: list[str]
) -> None:
    assert list(filter_assets(collection, roles=roles)) == keys


def test_an_asset_needs_all_of_the_roles_if_asked(collection: pystac.Collection) -> None:
    assert list(filter_assets(collection, roles=["data", "test"], match="all")) == ["data/test.csv"]
    assert list(filter_assets(collection, roles=["data", "data"], match="all")) == [
        "data/train.csv",
        "data/test.csv",
        "cog.tif",
    ]


def test_unwanted_roles_win_over_wanted_ones(collection: pystac.Collection) -> None:
    found = filter_assets(collection, roles="data", exclude_roles=["visual", "test"])
    assert list(found) == ["data/train.csv"]


def test_an_asset_without_roles_has_no_unwanted_role(collection: pystac.Collection) -> None:
    assert "unknown" in filter_assets(collection, exclude_roles="data")


@pytest.mark.parametrize(
    ("types", "keys"),
    [
        ("text/csv", ["data/train.csv", "data/test.csv"]),
        ("TEXT/CSV", ["data/train.csv", "data/test.csv"]),
        ("text/csv;charset=UTF-8", ["data/test.csv"]),
        ("image/*", ["cog.tif", "thumb.png"]),
        ("image/tiff", ["cog.tif"]),
        (pystac.MediaType.GEOTIFF, ["cog.tif"]),
        (pystac.MediaType.COG, ["cog.tif"]),
        ("image/tiff; profile=other", []),
        (["image/png", "text/markdown"], ["README.md", "thumb.png"]),
    ],
)
def test_media_types_may_be_globs_and_have_parameters(
    collection: pystac.Collection, types: Any, keys: list[str]
) -> None:
    assert list(filter_assets(collection, media_types=types)) == keys


@pytest.mark.parametrize(
    ("include", "exclude", "keys"),
    [
        ("data/*", None, ["data/train.csv", "data/test.csv"]),
        ("*.csv", "*/test.*", ["data/train.csv"]),
        (["cog.tif", "README.md"], None, ["cog.tif", "README.md"]),
        ("readme.md", None, []),
        (None, ["*"], []),
        ("*", "data/*", ["cog.tif", "README.md", "thumb.png", "unknown"]),
    ],
)
def test_globs_match_keys_case_sensitively(
    collection: pystac.Collection, include: Any, exclude: Any, keys: list[str]
) -> None:
    assert list(filter_assets(collection, include=include, exclude=exclude)) == keys


def test_a_key_with_brackets_matches_itself(collection: pystac.Collection) -> None:
    collection.add_asset("band[1].tif", asset(["data"]))
    assert list(filter_assets(collection, include="band[1].tif")) == ["band[1].tif"]
    assert "band[1].tif" not in filter_assets(collection, exclude="band[1].tif")


def test_all_conditions_must_be_met(collection: pystac.Collection) -> None:
    found = filter_assets(collection, roles="data", media_types="text/*", include="*test*")
    assert list(found) == ["data/test.csv"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"roles": 5},
        {"roles": b"data"},
        {"roles": {"data": 1}},
        {"include": [None]},
        {"media_types": ["text/csv", 1]},
        {"exclude_roles": object()},
        {"match": "some"},
    ],
)
def test_an_invalid_name_is_rejected(
    collection: pystac.Collection, arguments: dict[str, Any]
) -> None:
    (name,) = arguments
    with pytest.raises(ConfigurationError, match=rf"^{name}="):
        filter_assets(collection, **arguments)


def test_roles_are_listed_once_in_their_order(collection: pystac.Collection) -> None:
    assert asset_roles(collection) == ["data", "test", "visual", "metadata", "thumbnail"]
    assert asset_roles(collection.assets["cog.tif"]) == ["data", "visual"]
    assert asset_roles(asset()) == []


def test_a_role_written_as_a_bare_string_is_one_role() -> None:
    lone = asset("data")
    assert asset_roles(lone) == ["data"]
    found = pystac.Collection("x", "x", extent=pystac.Extent.from_dict(EXTENT))
    found.add_asset("a", lone)
    assert list(data_assets(found)) == ["a"]


def test_has_any_role(collection: pystac.Collection) -> None:
    assert has_any_role(collection, "thumbnail")
    assert has_any_role(collection, ["nope", "visual"])
    assert not has_any_role(collection.assets["README.md"], ["data", "visual"])
    assert not has_any_role(collection, [])
    assert not has_any_role(collection, None)


def test_short_forms(collection: pystac.Collection) -> None:
    assert list(assets_with_role(collection, "metadata")) == ["README.md"]
    assert list(data_assets(collection)) == ["data/train.csv", "data/test.csv", "cog.tif"]


def test_grouping_puts_an_asset_into_each_of_its_roles(collection: pystac.Collection) -> None:
    groups = group_by_role(collection)
    assert list(groups) == ["data", "test", "visual", "metadata", "thumbnail"]
    assert list(groups["visual"]) == ["cog.tif"]
    assert "cog.tif" in groups["data"]
    assert not any("unknown" in group for group in groups.values())
