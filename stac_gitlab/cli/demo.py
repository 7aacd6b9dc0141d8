"""``stac-gitlab demo``: what the package does, shown with a hub on this machine."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pystac
import requests

from stac_gitlab.cli.options import Commands
from stac_gitlab.cli.output import Output
from stac_gitlab.dialects import api_url
from stac_gitlab.download.assets import asset_roles, data_assets
from stac_gitlab.download.downloader import STACDownloader
from stac_gitlab.download.report import DownloadReport
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import printable
from stac_gitlab.testing import SharingHubServer, sample_projects

# A real server may have thousands of items in a collection.
ITEMS_SHOWN = 5
_SAMPLE_TOKEN = "glpat-sample-token-of-the-demo"  # noqa: S105  # for the stand-in only


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo",
        help="browse a hub, download the data of one item, and verify the files",
        description="Browse a SharingHub with stock pystac, download the data assets of one item "
        "and verify the files. Without --url, a stand-in server with sample projects is started on "
        "this machine. The token for a real server is taken from STAC_GITLAB_TOKEN, GITLAB_TOKEN "
        "or CI_JOB_TOKEN.",
    )
    parser.add_argument("--url", help="a SharingHub, such as https://hub.example.org")
    parser.add_argument("--item", help="the id of the item to download, such as group/project")
    parser.add_argument(
        "--output", type=Path, help="the folder to download to (default: a new one)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show attempts and waits")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, _output: Output) -> int:
    with _hub(arguments.url) as (base_url, stac_io):
        pystac.StacIO.set_default(stac_io)
        root = pystac.Catalog.from_file(api_url(base_url))
        print(f"Browsing {root.get_self_href()}\n")
        item = _show_tree(root, wanted=arguments.item)
        if item is None:
            what = f"item {arguments.item!r}" if arguments.item else "item with data assets"
            print(f"\nThere is no {what} to download.", file=sys.stderr)
            return 1
        folder = arguments.output or Path(tempfile.mkdtemp(prefix="stac-gitlab-demo-"))
        print(f"\nDownloading the data of {printable(item.id)} to {folder}\n")
        report = STACDownloader(stac_io=stac_io).download_assets(item, folder)
        return _show_files(report)


@contextlib.contextmanager
def _hub(url: str | None) -> Iterator[tuple[str, GitLabStacIO]]:
    """Yield the base URL of the hub at `url`, or of the stand-in, and a reader for it."""
    if url is not None:
        with GitLabStacIO(base_url=url) as stac_io:
            yield url, stac_io
        return
    direct = requests.Session()
    # Proxies of the environment are not for a server on this machine.
    direct.trust_env = False
    with (
        SharingHubServer(sample_projects(), token=_SAMPLE_TOKEN) as hub,
        GitLabStacIO(_SAMPLE_TOKEN, base_url=hub.url, session=direct) as stac_io,
    ):
        yield hub.url, stac_io


def _show_tree(root: pystac.Catalog, *, wanted: str | None) -> pystac.Item | None:
    """Print collections, items and assets; return the item to download.

    If no item is wanted, that is the one with the most data assets.
    """
    found: pystac.Item | None = None
    most = 0
    print(printable(root.title or root.id))
    for collection in root.get_children():
        title = collection.title or collection.description
        print(f"  {printable(collection.id)}: {printable(title)}")
        for item in islice(collection.get_items(), ITEMS_SHOWN):
            title = str(item.properties.get("title", ""))
            print(f"    {printable(item.id)}: {printable(title)}")
            for key, asset in item.assets.items():
                print(f"      {printable(key):<28} {printable(', '.join(asset_roles(asset)))}")
            if wanted is None and len(data_assets(item)) > most:
                found, most = item, len(data_assets(item))
        if wanted is not None and found is None:
            found = next(collection.get_items(wanted), None)
    return found


def _show_files(report: DownloadReport) -> int:
    for result in report.values():
        proof = "length only" if result.checksum is None else f"sha256 …{result.checksum[-12:]}"
        state = f"verified ({proof})" if result.verified else "NOT VERIFIED"
        print(f"  {result.path}  {result.size} bytes  {state}")
    count = len(report.downloaded)
    verified = all(result.verified for result in report.values())
    print(f"\n{count} files, {report.bytes} bytes, {'all' if verified else 'not all'} verified.")
    return 0 if count and verified else 1
