"""The ``stac-gitlab`` command."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pystac
import requests

from stac_gitlab.__about__ import __version__
from stac_gitlab.dialects import api_url
from stac_gitlab.download.assets import asset_roles, data_assets
from stac_gitlab.download.downloader import STACDownloader
from stac_gitlab.download.report import DownloadReport
from stac_gitlab.errors import STACGitLabError
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import quoted
from stac_gitlab.testing import SharingHubServer, sample_projects

# Of a real server with thousands of items, this many a collection give an idea.
ITEMS_SHOWN = 5
_SAMPLE_TOKEN = "glpat-sample-token-of-the-demo"  # noqa: S105  # opens nothing but the stand-in


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 only if all of it worked."""
    arguments = _parser().parse_args(argv)
    if arguments.verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    signal.signal(signal.SIGTERM, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal cannot show is no reason to fail.
            stream.reconfigure(errors="replace")
    try:
        return _demo(arguments)
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except STACGitLabError as error:
        print(f"stac-gitlab: {error}", file=sys.stderr)
    except pystac.STACError as error:
        # pystac wraps what happens while a link is followed; the cause is what tells.
        print(f"stac-gitlab: {error.__cause__ or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stac-gitlab: stopped.", file=sys.stderr)
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stac-gitlab", description="Authenticated STAC from the command line."
    )
    parser.add_argument("--version", action="version", version=f"stac-gitlab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    demo = commands.add_parser(
        "demo",
        help="browse a hub, download the data of one item, and verify them",
        description="Browse a SharingHub with stock pystac, download the data assets of one item "
        "and verify them. Without --url this happens against a stand-in on this machine, with a "
        "small sample hub that comes with the package. The token of a real server is taken from "
        "STAC_GITLAB_TOKEN, GITLAB_TOKEN or CI_JOB_TOKEN.",
    )
    demo.add_argument("--url", help="a SharingHub, such as https://hub.example.org")
    demo.add_argument("--item", help="the id of the item to download, such as group/project")
    demo.add_argument("--output", type=Path, help="where to download to (a new folder)")
    demo.add_argument("-v", "--verbose", action="store_true", help="show attempts and waits")
    return parser


def _stop(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _demo(arguments: argparse.Namespace) -> int:
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
        print(f"\nDownloading the data of {_plain(item.id)} to {folder}\n")
        report = STACDownloader(stac_io=stac_io).download_assets(item, folder)
        return _show_files(report)


@contextlib.contextmanager
def _hub(url: str | None) -> Iterator[tuple[str, GitLabStacIO]]:
    """Give the base URL of a hub, and a reader for it: the one at `url`, or the stand-in."""
    if url is not None:
        with GitLabStacIO(base_url=url) as stac_io:
            yield url, stac_io
        return
    direct = requests.Session()
    # What the environment says about proxies is not meant for a server on this machine.
    direct.trust_env = False
    with (
        SharingHubServer(sample_projects(), token=_SAMPLE_TOKEN) as hub,
        GitLabStacIO(_SAMPLE_TOKEN, base_url=hub.url, session=direct) as stac_io,
    ):
        yield hub.url, stac_io


def _show_tree(root: pystac.Catalog, *, wanted: str | None) -> pystac.Item | None:
    """Print collections, items and assets; return the item to download.

    Without a wish, that is the one with the most data assets of those shown.
    """
    found: pystac.Item | None = None
    most = 0
    print(_plain(root.title or root.id))
    for collection in root.get_children():
        print(f"  {_plain(collection.id)}: {_plain(collection.title or collection.description)}")
        for item in islice(collection.get_items(), ITEMS_SHOWN):
            print(f"    {_plain(item.id)}: {_plain(item.properties.get('title', ''))}")
            for key, asset in item.assets.items():
                print(f"      {quoted(key)[1:-1]:<28} {_plain(', '.join(asset_roles(asset)))}")
            if wanted is None and len(data_assets(item)) > most:
                found, most = item, len(data_assets(item))
        if wanted is not None and found is None:
            found = next(collection.get_items(wanted), None)
    return found


def _plain(text: object) -> str:
    """Return what a hub says without what would command the terminal."""
    return "".join(char if char.isprintable() else " " for char in str(text))


def _show_files(report: DownloadReport) -> int:
    for result in report.values():
        proof = "length only" if result.checksum is None else f"sha256 …{result.checksum[-12:]}"
        state = f"verified ({proof})" if result.verified else "NOT VERIFIED"
        print(f"  {result.path}  {result.size} bytes  {state}")
    count = len(report.downloaded)
    print(f"\n{count} files, {report.bytes} bytes, {'all' if report.ok else 'not all'} there.")
    return 0 if count and all(result.verified for result in report.values()) else 1
