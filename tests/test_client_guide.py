"""The snippets of SharingHub's client guide run as they are written there.

They differ from the guide only in how the reader is created, and in that they print nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pystac
import pytest
import requests
from pystac import Catalog, Item, StacIO

from stac_gitlab import GitLabStacIO, ImplicitTokenWarning
from stac_gitlab.testing import AccessLevel, Fault, Project, SharingHubServer, User

TOKEN = "glpat-guide-000001"
GUEST = "glpat-guest-000001"
NO_SCOPE = "glpat-scope-000001"

WINE = Project(
    "sharinghub-test/wine-dataset",
    {"wine-quality.csv": b"acid,quality\n7,5\n", "README.md": b"# Wine\n\nGood wine."},
    title="Wine",
)
SECRET = Project("closed/secret-dataset", {"data.csv": b"x"}, private=True, members=["owner"])
MODEL = Project(
    "models/cloud-model",
    {"model.onnx": b"ONNX", "weights.pt": b"PT", "notes.onnx.md": b"notes", "logo.png": b"png"},
    categories=("ai-model",),
    roles={"*.md": ["metadata"], "*.png": ["thumbnail"], "*": ["data"]},
)


@pytest.fixture
def hub() -> Iterator[SharingHubServer]:
    holders = {
        TOKEN: User("owner", level=AccessLevel.MAINTAINER),
        GUEST: User("guest"),
        NO_SCOPE: User("owner", scopes=frozenset({"read_user"})),
    }
    with SharingHubServer([WINE, SECRET, MODEL], tokens=holders) as running:
        yield running


@pytest.fixture(params=["the token", "headers of the guide", "headers of a class"])
def default_io(request: pytest.FixtureRequest) -> StacIO:
    """The default reader, created in each way that keeps the guide's setup."""
    if request.param == "the token":
        StacIO.set_default(GitLabStacIO(TOKEN))
        return StacIO.default()
    StacIO.set_default(GitLabStacIO() if request.param == "headers of the guide" else GitLabStacIO)
    stac_io = StacIO.default()
    stac_io.headers = {"X-Gitlab-Token": TOKEN}
    return stac_io


AUTH_HEADERS = {"X-Gitlab-Token": TOKEN}


def test_loading_a_single_item(hub: SharingHubServer, default_io: StacIO) -> None:
    stac_io = default_io
    STAC_API_URL = f"{hub.stac_url}/collections/dataset/items/sharinghub-test/wine-dataset"  # noqa: N806

    item = Item.from_file(STAC_API_URL, stac_io=stac_io)

    assert item.id == "sharinghub-test/wine-dataset"
    assert item.properties["title"] == "Wine"
    assert "wine-quality.csv" in item.get_assets()
    assert item.links
    assert item.geometry is None or item.bbox


def test_asset_download_pattern(
    hub: SharingHubServer, default_io: StacIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    item = Item.from_file(hub.item_url(WINE.path), stac_io=default_io)

    item_assets = [
        (name, asset) for name, asset in item.get_assets().items() if asset.has_role("data")
    ]
    for name, asset in item_assets:
        response = requests.get(asset.href, headers=AUTH_HEADERS, timeout=10)
        response.raise_for_status()

        with open(name, "wb") as f:
            f.write(response.content)

    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "wine-quality.csv": WINE.files["wine-quality.csv"]
    }


def test_asset_hrefs_look_as_the_guide_says_and_hold_no_token(
    hub: SharingHubServer, default_io: StacIO
) -> None:
    item = Item.from_file(hub.item_url(WINE.path), stac_io=default_io)
    assert item.assets["wine-quality.csv"].href == (
        f"{hub.url}/api/download/sharinghub-test/wine-dataset/repository/wine-quality.csv?ref=main"
    )


def test_use_case_1_downloading_ai_models(
    hub: SharingHubServer, default_io: StacIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stac_io = default_io
    model_url = f"{hub.stac_url}/collections/ai-model/items/models/cloud-model"

    # Load model item
    model_item = Item.from_file(model_url, stac_io=stac_io)

    # Download ONNX model files
    for name, asset in model_item.get_assets().items():
        if asset.has_role("data") and name.endswith(".onnx"):
            response = requests.get(asset.href, headers=AUTH_HEADERS, timeout=10)
            with open(name, "wb") as f:
                f.write(response.content)

    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"model.onnx": b"ONNX"}


def test_use_case_2_batch_dataset_discovery(hub: SharingHubServer, default_io: StacIO) -> None:
    stac_io = default_io
    # Load dataset collection
    collection_url = f"{hub.stac_url}/collections/dataset"
    catalog = Catalog.from_file(collection_url, stac_io=stac_io)

    # List all items (datasets)
    lines = []
    for item in catalog.get_items():
        lines.append(f"Dataset: {item.id}")
        lines.append(f"  Description: {item.properties.get('description', 'N/A')}")
        lines.append(f"  Assets: {list(item.get_assets().keys())}")

    assert lines[0] == "Dataset: sharinghub-test/wine-dataset"
    assert "Good wine." in lines[1]
    assert lines[2] == "  Assets: ['wine-quality.csv']"
    assert lines[3] == "Dataset: closed/secret-dataset"
    assert isinstance(catalog, pystac.Collection)


def test_use_case_3_ci_cd_integration(
    hub: SharingHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_JOB_TOKEN", TOKEN)
    StacIO.set_default(GitLabStacIO())

    # Use CI job token for authentication
    AUTH_HEADERS = {"X-Gitlab-Token": os.environ["CI_JOB_TOKEN"]}  # noqa: N806
    stac_io = StacIO.default()
    stac_io.headers = AUTH_HEADERS

    # Access STAC API
    item_url = f"{hub.stac_url}/collections/ai-model/items/models/cloud-model"
    item = Item.from_file(item_url, stac_io=stac_io)

    assert item.id == "models/cloud-model"
    assert hub.requests[0].headers["X-Gitlab-Token"] == TOKEN


def test_the_job_token_of_the_environment_is_enough(
    hub: SharingHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_JOB_TOKEN", TOKEN)
    StacIO.set_default(GitLabStacIO)
    with pytest.warns(ImplicitTokenWarning, match="CI_JOB_TOKEN"):
        assert Item.from_file(hub.item_url(WINE.path)).id == WINE.path
    assert hub.requests[0].headers["X-Gitlab-Token"] == TOKEN


def error_handling(STAC_API_URL: str, stac_io: StacIO) -> str:  # noqa: N803
    """Run the guide's block, and return what it prints."""
    try:
        item = Item.from_file(STAC_API_URL, stac_io=stac_io)
    except requests.HTTPError as e:
        if e.response.status_code == 401:
            return "Authentication failed. Check your access token."
        if e.response.status_code == 403:
            return "Access denied. Verify project permissions."
        if e.response.status_code == 404:
            return "Item not found. Check the URL and project path."
        return f"HTTP error: {e}"
    except Exception as e:  # noqa: BLE001  # as in the guide
        return f"Unexpected error: {e}"
    return item.id


@pytest.mark.parametrize(
    ("token", "path", "printed"),
    [
        (TOKEN, WINE.path, WINE.path),
        (TOKEN, "no/such-project", "Item not found. Check the URL and project path."),
        (GUEST, SECRET.path, "Item not found. Check the URL and project path."),
        ("glpat-wrong-0001", WINE.path, "Authentication failed. Check your access token."),
        (NO_SCOPE, WINE.path, "Authentication failed. Check your access token."),
        (TOKEN, MODEL.path, "HTTP error: "),
    ],
    ids=["good", "missing", "forbidden", "wrong token", "small scope", "wrong collection"],
)
def test_error_handling(hub: SharingHubServer, token: str, path: str, printed: str) -> None:
    output = error_handling(hub.item_url(path), GitLabStacIO(token))
    assert output.startswith(printed)
    assert token not in output


@pytest.mark.parametrize(
    ("status", "printed"),
    [
        (401, "Authentication failed. Check your access token."),
        (403, "Access denied. Verify project permissions."),
        (404, "Item not found. Check the URL and project path."),
        (429, "HTTP error: GET http"),
        (500, "HTTP error: GET http"),
        (503, "HTTP error: GET http"),
    ],
)
def test_error_handling_by_status(hub: SharingHubServer, status: int, printed: str) -> None:
    hub.inject(Fault(status=status, headers={"Retry-After": "3600"}, body={"detail": TOKEN}))
    output = error_handling(hub.item_url(WINE.path), GitLabStacIO(TOKEN))
    assert output.startswith(printed)
    assert TOKEN not in output


def test_error_handling_without_any_token_says_so(hub: SharingHubServer) -> None:
    with pytest.raises(requests.HTTPError, match="No token was sent") as caught:
        Item.from_file(hub.item_url(WINE.path), stac_io=GitLabStacIO())
    assert caught.value.response.status_code == 401


class STACDownloader:
    """The helper class of the guide, with the imports of this module."""

    def __init__(self, auth_token: str, base_url: str) -> None:
        self.auth_headers = {"X-Gitlab-Token": auth_token}
        self.stac_io = StacIO.default()
        self.stac_io.headers = self.auth_headers
        self.base_url = base_url

    def load_item(self, collection: str, namespace: str, project: str) -> Item:
        url = f"{self.base_url}/api/stac/collections/{collection}/items/{namespace}/{project}"
        return Item.from_file(url, stac_io=self.stac_io)

    def download_assets(self, item: Item, output_dir: Path, roles: list[str] = ["data"]) -> None:  # noqa: B006
        output_dir.mkdir(parents=True, exist_ok=True)

        for name, asset in item.get_assets().items():
            if any(asset.has_role(role) for role in roles):
                file_path = output_dir / name
                response = requests.get(asset.href, headers=self.auth_headers, timeout=10)
                response.raise_for_status()

                with file_path.open("wb") as f:
                    f.write(response.content)


@pytest.mark.parametrize("default", [GitLabStacIO, GitLabStacIO()], ids=["class", "instance"])
def test_code_organization(
    hub: SharingHubServer, tmp_path: Path, default: Callable[[], StacIO]
) -> None:
    StacIO.set_default(default)
    downloader = STACDownloader(TOKEN, hub.url)
    item = downloader.load_item("ai-model", "models", "cloud-model")
    downloader.download_assets(item, tmp_path / "out", roles=["data", "thumbnail"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "logo.png",
        "model.onnx",
        "weights.pt",
    ]


def test_set_default_takes_an_instance_a_function_and_the_class(
    hub: SharingHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = GitLabStacIO(TOKEN)
    for given in (shared, lambda: shared):
        StacIO.set_default(given)
        assert StacIO.default() is shared
        assert Item.from_file(hub.item_url(WINE.path)).id == WINE.path
    monkeypatch.setenv("STAC_GITLAB_TOKEN", TOKEN)
    monkeypatch.setenv("STAC_GITLAB_URL", hub.url)
    StacIO.set_default(GitLabStacIO)
    assert isinstance(StacIO.default(), GitLabStacIO)
    assert Item.from_file(hub.item_url(WINE.path)).id == WINE.path
