"""The stand-in responds as a real SharingHub did, in each recorded exchange."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from stand_in import RecordedHub, RecordedProject

from stac_gitlab.testing import AccessLevel, Category, Project, Release, User

ORIGIN = "https://sharinghub.example.org"
TOKEN = "glpat-recorded-token"
GUEST_TOKEN = "glpat-carol-guest-0001"

_LOGOS = "https://data.web.p2.csgroup.space/sharinghub"
_STARS = 7
_ODD_NAMES = (
    "100%.csv",
    "Case.csv",
    "a#b.csv",
    "amp&eq=.csv",
    "archive.zip.csv",
    "back\\slash.csv",
    "case.csv",
    "colon:name.csv",
    "données été.csv",
    "empty.csv",
    "pct%20enc.csv",
    "plus+plus.csv",
    'quo"te.csv',
    "repository/inner.csv",
    "semi;colon.csv",
    "sub dir/with space.csv",
    "train.csv",
    "what?.csv",
    "データ.csv",
)
_CONTENTS = {
    "data/train.csv": b"x,y\n" + b"1" * (108905 - 4),
    "data/empty.csv": b"",
    "big/big-60mb.bin": bytes(600_000),
    "weights/model.safetensors": bytes(2048),
    "weights/small.safetensors": bytes(range(250)) * 12_000,
}

CATEGORIES = (
    Category(
        "ai-model",
        "AI Models",
        "AI models are the core of our platform, go and browse them to discover our models.",
        f"{_LOGOS}/ai-model.jpg",
    ),
    Category(
        "dataset",
        "Datasets",
        "Datasets are very important in the process of training an AI, "
        "discover those that we put at your disposal.",
        f"{_LOGOS}/datasets.jpg",
    ),
    Category(
        "processor",
        "Processors",
        "A list of useful tools for working with your models.",
        f"{_LOGOS}/processor.jpg",
    ),
    Category(
        "tools",
        "Tools/Libraries",
        "We list tools and libraries that can make your life easier in the development of your "
        "models, or their use.",
        f"{_LOGOS}/tools.jpg",
    ),
    Category(
        "dashboard",
        "Dashboards",
        "Try using models with dashboards, for a visual and intuitive demonstration!",
        f"{_LOGOS}/space.jpg",
    ),
    Category("poison"),
)

RECORDED = Path(__file__).parent.parent / "recorded"
EXCHANGES = sorted(path.stem for path in RECORDED.glob("*.json"))

# Values and headers that differ from server to server.
FREE_VALUES = {
    "root": {"json.description"},  # names the operator's own GitLab
    "root-invalid-token": {"json.description"},
}
FREE_HEADERS = {
    "content-length",  # hosts and tokens of other lengths stood there when it was recorded
    "last-modified",
    "x-request-id",
    "x-gitlab-blob-id",
    "x-gitlab-commit-id",
    "x-gitlab-content-sha256",
    "x-gitlab-last-commit-id",
    "x-gitlab-size",
}
UNRECORDED_HEADERS = {"date", "set-cookie", "connection"}
# The bodies of these exchanges were not recorded, and are smaller here.
SHRUNK_BODIES = {
    "download-archive",
    "download-blob-identity",
    "download-blob-range-ignored",
}
UPSTREAM = {
    "error-429-upstream": 429,
    "error-502-upstream": 502,
    "error-500-plain-text": None,
}


@pytest.fixture(scope="module")
def server() -> Iterator[RecordedHub]:
    with recorded_server() as running:
        yield running


@pytest.fixture(scope="module")
def replay(server: RecordedHub) -> Callable[[dict[str, Any]], requests.Response]:
    """Send a recorded request to the stand-in, with the host of the recorded server."""

    def send(request: dict[str, Any]) -> requests.Response:
        headers = {"Host": "sharinghub.example.org", "X-Forwarded-Proto": "https"}
        # A connection for each request, because the server closes some of them unannounced.
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                request["method"],
                request["url"].replace(ORIGIN, server.url),
                headers={**request["headers"], **headers},
                json=request.get("json"),
                timeout=10,
            )

    return send


def recorded(name: str) -> dict[str, Any]:
    exchange: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return exchange


def differences(expected: object, got: object, where: str, free: set[str]) -> Iterator[str]:
    """Yield the differences of two JSON values: keys and their order, types, lengths, values."""
    if type(expected) is not type(got):
        yield f"{where}: {type(expected).__name__} became {type(got).__name__}"
    elif isinstance(expected, dict) and isinstance(got, dict):
        if list(expected) != list(got):
            yield f"{where}: keys {list(expected)} became {list(got)}"
        for key in expected.keys() & got.keys():
            yield from differences(expected[key], got[key], f"{where}.{key}", free)
    elif isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            yield f"{where}: {len(expected)} elements became {len(got)}"
        for index, (before, after) in enumerate(zip(expected, got, strict=False)):
            yield from differences(before, after, f"{where}[{index}]", free)
    elif expected != got and where not in free:
        yield f"{where}: {expected!r} became {got!r}"


def header_differences(expected: dict[str, str], response: requests.Response) -> Iterator[str]:
    got = {name.lower(): value for name, value in response.headers.items()}
    names = set(got) - UNRECORDED_HEADERS
    if names != set(expected):
        yield f"headers: missing {set(expected) - names}, new {names - set(expected)}"
    for name in (set(expected) & names) - FREE_HEADERS:
        if name == "content-disposition" and "zip" in expected[name]:
            before, after = expected[name].rpartition("-")[0], got[name].rpartition("-")[0]
        else:
            before, after = expected[name], got[name]
        if before != after:
            yield f"header {name}: {before!r} became {after!r}"


@pytest.mark.parametrize("name", EXCHANGES)
def test_the_stand_in_responds_as_recorded(
    name: str,
    server: RecordedHub,
    replay: Callable[[dict[str, Any]], requests.Response],
) -> None:
    exchange = recorded(name)
    expected = exchange["response"]
    server.clear_faults()
    if name in UPSTREAM:
        server.upstream(UPSTREAM[name])

    response = replay(exchange["request"])

    assert response.status_code == expected["status"]
    assert list(header_differences(expected["headers"], response)) == []
    if "json" in expected:
        free = FREE_VALUES.get(name, set())
        assert list(differences(expected["json"], response.json(), "json", free)) == []
    elif "text" in expected:
        assert response.text == expected["text"]
    else:
        size = len(response.content)
        assert size == expected["body_bytes"] or name in SHRUNK_BODIES
        assert int(response.headers.get("x-gitlab-size", size)) == size
        if response.headers.get("transfer-encoding") != "chunked":
            assert int(response.headers["content-length"]) == size


def test_every_response_sets_the_session_cookie(
    replay: Callable[[dict[str, Any]], requests.Response],
) -> None:
    for name in ("root", "conformance", "error-401-no-token", "download-404", "download-archive"):
        cookie = replay(recorded(name)["request"]).headers["set-cookie"]
        assert cookie.startswith("sharinghub-session="), name


def test_there_are_recordings() -> None:
    assert len(EXCHANGES) > 30


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item.pop("bbox"),
        lambda item: item["properties"].update(datetime=None),
        lambda item: item["properties"].update(gsd="10"),
        lambda item: item["links"].pop(),
        lambda item: item["links"].reverse(),
        lambda item: item["assets"].update(new={}),
        lambda item: item["assets"]["data/a#b.csv"].update(href="elsewhere"),
        lambda item: item["assets"]["data/a#b.csv"]["roles"].append("visual"),
        lambda item: item.update(id=item.pop("id")),
    ],
)
def test_the_comparison_notices_a_changed_item(change: Callable[[Any], Any]) -> None:
    expected = recorded("item-nested-group")["response"]["json"]
    changed = copy.deepcopy(expected)
    assert list(differences(expected, changed, "json", set())) == []
    change(changed)
    assert list(differences(expected, changed, "json", set()))


def recorded_server() -> RecordedHub:
    """Return the stand-in with the projects of the recorded server."""
    return RecordedHub(
        recorded_projects(),
        tokens={TOKEN: User(level=AccessLevel.MAINTAINER), GUEST_TOKEN: "carol"},
        categories=CATEGORIES,
        gitlab="https://gitlab.example.org",
    )


def recorded_projects() -> list[Project]:
    """Return the projects in the order of their recorded numbers. 268 of them are data sets."""
    known = {
        101: _s2_demo(),
        102: _plain("private/secret-dataset", "Secret", 102, private=True),
        103: _plain("private/bob-team/shared-dataset", "Shared", 103, private=True),
        104: _plain(
            "private/guest-area/guest-dataset", "Guest", 104, private=True, guests=("carol",)
        ),
        105: _plain("internal/intern-dataset", "Intern", 105),
        106: Project("earth-obs/no-readme", {".gitkeep": b""}, roles={}, stars=_stars(106)),
        107: Project("earth-obs/empty-repo", ref=None, stars=_stars(107)),
        115: _plain(
            "multi/both-categories",
            "Both",
            115,
            categories=("ai-model", "dataset"),
            extra_links=(
                {
                    "rel": "mlflow:tracking-uri",
                    "href": "https://mlflow.example.org/mlflow/multi/both-categories/tracking/",
                    "title": "MLflow - Tracking URI",
                },
            ),
        ),
        241: _bulk(),
    }
    return [
        known.get(number)
        or Project(f"filler/z-{number}", categories=("dataset" if number > 241 else "ai-model",))
        for number in range(101, 501)
    ]


def _stars(number: int) -> int:
    return (number - 98) % _STARS


def _plain(path: str, word: str, number: int, **options: object) -> Project:
    return Project(
        path,
        {"data/table.csv": b"a,b\n"},
        readme=f"# {word}\n\nSome text about {word}.",
        stars=_stars(number),
        **options,  # type: ignore[arg-type]  # attributes of a Project, passed on
    )


def _bulk() -> Project:
    return Project(
        "earth-obs/sub-00/bulk-dataset-000",
        {"data/table.csv": b"a,b\n", "data/meta.json": b"{}"},
        readme="# Bulk 0\n\nSome text about Bulk 0.",
        stars=_stars(241),
        keywords=("bulk", "tag 0"),
        bbox=(-180.0, -80.0, -179.0, -79.0),
        temporal=("2023-01-01T00:00:00Z", "2023-02-01T00:00:00Z"),
        license="MIT",
    )


def _s2_demo() -> Project:
    names = [
        *(f"data/{name}" for name in _ODD_NAMES),
        "table.csv",
        "big/big-60mb.bin",
        "weights/model.safetensors",
        "weights/small.safetensors",
        "images/a.tif",
        "images/thumb.png",
        "images/fig one.png",
        "docs/about.md",
        ".dvc/config",
        "LICENSE",
    ]
    return RecordedProject(
        "earth-obs/sentinel/s2-demo",
        {name: _CONTENTS.get(name, f"content of {name}\n".encode()) for name in names},
        title="Sentinel-2 demo",
        name="S2 Demo",
        readme=(
            "# S2 Demo\n\n![Preview](images/thumb.png)\n\n"
            "[DOI: A citation.](https://doi.org/10.1234/abcd)\n\n![inline](images/fig one.png)\n"
        ),
        summary="Rich demo dataset",
        keywords=("Sentinel-2", "Object detection"),
        bbox=(-66.6407, 17.9823, -66.5902, 18.0299),
        temporal=("2023-11-01T12:00:00Z", "2024-01-01T12:00:00Z"),
        stars=_stars(101),
        license="MIT",
        roles={
            "*.csv": ["data"],
            "big/*": ["data"],
            "weights/*": ["data"],
        },
        lfs=("weights/*",),
        releases=(Release("v1.0", "First", "first release"),),
        properties={
            "gsd": 10,
            "platform": "sentinel-2",
            "eo:cloud_cover": 12.5,
            "sci:doi": "10.1234/abcd",
            "sci:citation": "A citation.",
        },
        extensions=(
            "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
            "https://stac-extensions.github.io/scientific/v1.0.0/schema.json",
        ),
        extra_assets={
            "images/a.tif": {
                "path": "images/a.tif",
                "roles": ["data", "visual"],
                "title": "COG images/a.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            },
            "docs/about.md": {
                "path": "docs/about.md",
                "roles": ["metadata"],
                "type": "text/markdown",
            },
        },
        extra_links=(
            {"rel": "about", "href": "docs/about.md"},
            {"rel": "via", "href": "https://example.org/source"},
            {
                "rel": "derived_from",
                "type": "application/geo+json",
                "title": "ai-model: models/vision/resnet-demo",
                "href": f"{ORIGIN}/api/stac/collections/ai-model/items/models/vision/resnet-demo",
            },
        ),
        packages={"pkg-a": "pypi"},
    )
