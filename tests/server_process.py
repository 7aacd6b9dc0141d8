"""Stand-ins in another process: GDAL may hold the interpreter while it waits for a server."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pystac
from fault_server import ServedFile

from stac_gitlab.testing import Answer, LoopbackServer, Project, SharingHubServer

PROJECT = "alpine/rasters"


@dataclass(frozen=True)
class Seen:
    """A request that a server got."""

    method: str
    path: str
    headers: Mapping[str, str]
    status: int | None

    @property
    def is_authenticated(self) -> bool:
        return "x-gitlab-token" in {name.lower() for name in self.headers}

    @property
    def bytes_requested(self) -> int:
        """The length of the range."""
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        return int(last) - int(first) + 1


class Servers:
    """The servers of another process.

    Attributes:
        hub: The URL of a SharingHub with one private project, which ignores ranges.
        data: The URL of a server with the same files: below `/ranged`, below `/plain` without
            ranges, and below `/away`, from where a redirect leads to `other`.
        other: The URL of a third server, with ranges.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.hub, self.data, self.other = connection.recv()

    @property
    def assets(self) -> str:
        """The `stacs` URL of the project's assets."""
        home = self.hub.removeprefix("http://")
        return f"stacs://{home}/api/stac/collections/dataset/items/{PROJECT}/-/asset"

    @property
    def ranged_assets(self) -> str:
        """The `stacs` URL of an item whose assets are read in ranges."""
        return f"stacs://{self.data.removeprefix('http://')}/item.json/-/asset"

    def requests(self) -> dict[str, list[Seen]]:
        """Return the requests since the last call, by server."""
        self._connection.send("requests")
        found: dict[str, list[Seen]] = self._connection.recv()
        return found


@contextlib.contextmanager
def servers_in_a_process(folder: Path, token: str) -> Iterator[Servers]:
    """Serve the files of a folder."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, folder, token), daemon=True)
    process.start()
    try:
        yield Servers(ours)
    finally:
        with contextlib.suppress(OSError):
            ours.send("stop")
        process.join(10)
        process.kill()


def _serve(connection: Connection, folder: Path, token: str) -> None:
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    project = Project(PROJECT, files, private=True)
    with (
        SharingHubServer([project], token=token) as hub,
        LoopbackServer() as data,
        LoopbackServer() as other,
    ):
        assets = {}
        for name, content in files.items():
            data.route(f"/ranged/{name}", ServedFile(content))
            data.route(f"/plain/{name}", ServedFile(content, keeps_ranges=False))
            away = Answer(302, (("location", f"{other.url}/{name}"),), b"")
            data.route(f"/away/{name}", lambda _request, away=away: away)  # type: ignore[misc]
            other.route(f"/{name}", ServedFile(content))
            assets[name] = {"href": f"{data.url}/ranged/{name}", "roles": ["data"]}
        data.route("/item.json", _json_of_item(assets, f"{data.url}/item.json"))
        connection.send((hub.url, data.url, other.url))
        counts: dict[str, int] = {}
        while connection.recv() == "requests":
            answer: dict[str, list[Seen]] = {}
            for name, server in {"hub": hub, "data": data, "other": other}.items():
                new = server.requests[counts.get(name, 0) :]
                counts[name] = counts.get(name, 0) + len(new)
                answer[name] = [Seen(r.method, r.path, dict(r.headers), r.status) for r in new]
            connection.send(answer)


def _json_of_item(assets: dict[str, Any], url: str) -> bytes:
    item = pystac.Item("rasters", None, None, datetime(2023, 6, 1, tzinfo=UTC), {})
    item.set_self_href(url)
    for key, asset in assets.items():
        item.add_asset(key, pystac.Asset.from_dict(asset))
    return json.dumps(item.to_dict()).encode()
