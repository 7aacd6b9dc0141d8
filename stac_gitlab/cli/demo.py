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

from stac_gitlab.cli.options import reader
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


def run_demo(arguments: argparse.Namespace, output: Output) -> int:
    """Browse a hub, download the data of one item, and verify the files."""
    with _hub(arguments) as (base_url, stac_io):
        pystac.StacIO.set_default(stac_io)
        root = pystac.Catalog.from_file(api_url(base_url))
        output.say(f"Browsing {root.get_self_href()}\n")
        item = _show_tree(output, root, wanted=arguments.item)
        if item is None:
            what = f"item {arguments.item!r}" if arguments.item else "item with data assets"
            print(f"\nThere is no {what} to download.", file=sys.stderr)
            return 1
        folder = arguments.output or Path(tempfile.mkdtemp(prefix="stac-gitlab-demo-"))
        output.say(f"\nDownloading the data of {printable(item.id)} to {folder}\n")
        report = STACDownloader(stac_io=stac_io).download_assets(item, folder)
        return _show_files(output, report)


@contextlib.contextmanager
def _hub(arguments: argparse.Namespace) -> Iterator[tuple[str, GitLabStacIO]]:
    """Yield the base URL of the hub, or of the stand-in, and a reader for it."""
    if arguments.url is not None:
        with reader(arguments, arguments.url) as stac_io:
            yield arguments.url, stac_io
        return
    direct = requests.Session()
    # Proxies of the environment are not for a server on this machine.
    direct.trust_env = False
    with (
        SharingHubServer(sample_projects(), token=_SAMPLE_TOKEN) as hub,
        GitLabStacIO(_SAMPLE_TOKEN, base_url=hub.url, session=direct) as stac_io,
    ):
        yield hub.url, stac_io


def _show_tree(output: Output, root: pystac.Catalog, *, wanted: str | None) -> pystac.Item | None:
    """Print collections, items and assets; return the item to download.

    If no item is wanted, that is the one with the most data assets.
    """
    found: pystac.Item | None = None
    most = 0
    output.say(printable(root.title or root.id))
    for collection in root.get_children():
        title = collection.title or collection.description
        output.say(f"  {printable(collection.id)}: {printable(title)}")
        for item in islice(collection.get_items(), ITEMS_SHOWN):
            title = str(item.properties.get("title", ""))
            output.say(f"    {printable(item.id)}: {printable(title)}")
            for key, asset in item.assets.items():
                output.say(f"      {printable(key):<28} {printable(', '.join(asset_roles(asset)))}")
            if wanted is None and len(data_assets(item)) > most:
                found, most = item, len(data_assets(item))
        if wanted is not None and found is None:
            found = next(collection.get_items(wanted), None)
    return found


def _show_files(output: Output, report: DownloadReport) -> int:
    for result in report.values():
        proof = "length only" if result.checksum is None else f"sha256 …{result.checksum[-12:]}"
        state = f"verified ({proof})" if result.verified else "NOT VERIFIED"
        output.say(f"  {result.path}  {result.size} bytes  {state}")
    count = len(report.downloaded)
    if output.json:
        fields = ("key", "path", "size", "status", "verified")
        output.data([{n: getattr(result, n) for n in fields} for result in report.values()])
    verified = all(result.verified for result in report.values())
    output.say(
        f"\n{count} files, {report.bytes} bytes, {'all' if verified else 'not all'} verified."
    )
    return 0 if count and verified else 1
