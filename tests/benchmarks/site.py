"""What the contenders read from: nginx on loopback, plain, with TLS, capped, as if from afar."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stac_gitlab.download.git_blobs import git_ids_of
from tests.benchmarks.documents import API, asset_item, write_api, write_static_collection
from tests.benchmarks.harness import ROOT

__all__ = ["Site", "Sizes", "opened_site"]

HOST = "127.0.0.1"
CAP = 20 * 10**6
"""Bytes per second of one connection to the capped listener."""

_PROJECT = "/api/v4/projects/1"
_TREE_PAGE = 100
_LISTENERS = ("near", "hinting", "tls", "capped", "far", "far-hinting")
_BLOCK = 2**20
# Files repeat after so many blocks. Not more: whatever this process holds at its worst, the system
# counts as held by the contenders that it starts.
_BLOCKS = 4

_CONFIGURATION = """
{user}
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 4096; }}
http {{
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  log_format served "$status $body_bytes_sent";
  access_log served.log served;
  client_body_temp_path temporary;
  proxy_temp_path temporary;
  fastcgi_temp_path temporary;
  uwsgi_temp_path temporary;
  scgi_temp_path temporary;
  types {{ application/json json; }}
  default_type application/octet-stream;
  map $arg_page $page {{ default $arg_page; "" 1; }}
  # Of the tree of a GitLab project.
  map $arg_page $next_page {{ default ""; {next_pages} }}
  # An empty header is not sent.
  map $server_port $remaining {{ default ""; {hinting} 1000; }}
  add_header RateLimit-Remaining $remaining;
  server {{
    listen {host}:{plain};
    listen {host}:{hinting};
    listen {host}:{tls} ssl;
    ssl_certificate certificate.pem;
    ssl_certificate_key key.pem;
    root {root};
    location /same/ {{
      try_files /same.bin =404;
    }}
    location = {project}/repository/tree {{
      add_header X-Next-Page $next_page;
      add_header X-Total {files};
      try_files {project}/tree/$page.json =404;
    }}
    location ~ ^/(?<api>[^/]+)/{api}/collections/[^/]+/items$ {{
      try_files /$api/pages/$page.json =404;
    }}
    location ~ ^/(?<api>[^/]+)/{api}/collections/[^/]+$ {{
      try_files /$api/collection.json =404;
    }}
    location ~ ^/(?<api>[^/]+)/{api}/?$ {{
      try_files /$api/landing.json =404;
    }}
  }}
  server {{
    listen {host}:{capped};
    root {root};
    limit_rate {cap};
  }}
}}
"""


@dataclass(frozen=True)
class Sizes:
    """How much there is of everything.

    Attributes:
        large_file: Bytes of the one large file.
        tls_file: Bytes of the one that is read over TLS.
        capped_file: Bytes of the one whose server limits the speed of each connection.
        files: How many small files there are.
        small_file: Bytes of each.
        items: How many items are paged through.
        static_items: How many items have a file of their own.
        walks: How many items are walked through while memory is watched.
        growth: How many files are downloaded, to see whether each costs the same.
        round_trip: Seconds from afar and back.
    """

    large_file: int = 2000 * 2**20
    tls_file: int = 512 * 2**20
    capped_file: int = 200 * 2**20
    files: int = 1000
    small_file: int = 10_000
    items: int = 10_000
    static_items: int = 1000
    walks: tuple[int, ...] = (10_000, 100_000)
    growth: tuple[int, ...] = (1000, 10_000, 100_000)
    round_trip: float = 0.02

    @classmethod
    def quick(cls) -> Sizes:
        """Return sizes with which everything runs in a minute or two."""
        return cls(
            large_file=100 * 2**20,
            tls_file=50 * 2**20,
            capped_file=20 * 2**20,
            files=200,
            items=1000,
            static_items=100,
            walks=(500, 2000),
            growth=(100, 500),
        )


class Site:
    """The servers, and the files that they serve, which are made when they are first asked for.

    Attributes:
        sizes: How much there is of everything.
        certificate: The certificate of the TLS listener, for clients to trust.
    """

    def __init__(
        self, folder: Path, sizes: Sizes, ports: Mapping[str, int], stack: contextlib.ExitStack
    ) -> None:
        self._stack = stack
        self.sizes = sizes
        self.certificate = folder / "certificate.pem"
        self._folder = folder
        self._root = folder / "root"
        self._log = folder / "served.log"
        self._ports = ports
        self._served = (0, 0, 0)

    def origin(self, listener: str) -> str:
        """Return the origin of a listener.

        Args:
            listener: ``near``; ``tls``; ``capped``; ``hinting``, which says how many requests are
                left; ``far`` and ``far-hinting`` through a slow proxy.
        """
        return f"{'https' if listener == 'tls' else 'http'}://{HOST}:{self._ports[listener]}"

    def served(self) -> tuple[int, int]:
        """Return how many requests were answered so far, and the bytes of their bodies."""
        position, requests, size = self._served
        with self._log.open("rb") as log:
            log.seek(position)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                position += len(line)
                requests += 1
                size += int(line.split()[1])
        self._served = (position, requests, size)
        return requests, size

    # -- files ------------------------------------------------------------------------------

    def file(self, name: str, size: int) -> Path:
        """Return a served file of `size` bytes; its URL ends in ``/{name}``."""
        path = self._root / name
        if not path.exists():
            self._write(path, size)
        return path

    def _write(self, path: Path, size: int, *, different: bool = False) -> None:
        with path.open("wb") as file:
            if different:
                file.write(path.name.encode())
            for start in range(file.tell(), size, _BLOCK):
                block = self._noise[start // _BLOCK % _BLOCKS]
                file.write(block[: min(_BLOCK, size - start)])

    def file_item(self, name: str, size: int, listener: str, *, hashed: bool = False) -> str:
        """Return the URL of an item with one file; `hashed` if it is to name the checksum."""
        self.file(name, size)
        asset = self._asset(f"{self.origin(listener)}/{name}", hashed=hashed)
        asset["file:size"] = size
        return self._item(f"{name}-{listener}-{hashed}", {name: asset}, listener)

    def small_files(self, listener: str) -> list[str]:
        """Return the URLs of the small files."""
        (self._root / "small").mkdir(exist_ok=True)
        names = [f"small/{number:05}.bin" for number in range(self.sizes.files)]
        for name in names:
            self.file(name, self.sizes.small_file)
        return [f"{self.origin(listener)}/{name}" for name in names]

    def small_files_item(self, listener: str, *, hashed: bool = False) -> str:
        """Return the URL of an item with all small files; `hashed` if it is to name checksums."""
        assets = {
            url.rpartition("/")[2]: self._asset(url, hashed=hashed)
            for url in self.small_files(listener)
        }
        return self._item(f"small-{listener}-{hashed}", assets, listener)

    def same_files_item(self, count: int, size: int) -> str:
        """Return the URL of an item with so many files, which all have the same content."""
        self.file("same.bin", size)
        home, name = f"{self.origin('near')}/same", f"same-{count}"
        # As text, since this process must not need more memory than the contenders.
        assets = ",".join(f'"{n:06}.bin": {{"href": "{home}/{n:06}.bin"}}' for n in range(count))
        text = json.dumps(asset_item(name, {})).replace('"assets": {}', f'"assets": {{{assets}}}')
        (self._root / f"{name}.json").write_text(text)
        return f"{self.origin('near')}/{name}.json"

    def project_item(self, listener: str) -> str:
        """Return the URL of an item in a GitLab project, with all small files of the project.

        The project also has a listing of its tree, and an archive.
        """
        root = self._root / _PROJECT[1:]
        files = f"{self.origin(listener)}{_PROJECT}/repository/files"
        paths = [self._root / url.split("/", 3)[3] for url in self.small_files(listener)]
        assets = {
            path.name: {
                "href": f"{files}/{path.name}/raw?ref=main",
                "file:size": self.sizes.small_file,
            }
            for path in paths
        }
        if not root.exists():
            self._write_project(root, paths)
        item = root / "repository" / "files" / f"{listener}.json" / "raw"
        item.parent.mkdir()
        item.write_text(json.dumps(asset_item("project", assets)))
        return f"{files}/{listener}.json/raw?ref=main"

    def _write_project(self, root: Path, paths: Sequence[Path]) -> None:
        (root / "tree").mkdir(parents=True)
        entries = []
        with zipfile.ZipFile(root / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                raw = root / "repository" / "files" / path.name / "raw"
                raw.parent.mkdir(parents=True)
                raw.symlink_to(path)
                archive.write(path, f"project-main/{path.name}")
                blob = git_ids_of(path, blob=True, sha256=False).blob
                entries.append({"type": "blob", "path": path.name, "id": blob})
        (root / "archive.zip").rename(root / "repository" / "archive.zip")
        for number, start in enumerate(range(0, len(entries), _TREE_PAGE), 1):
            page = entries[start : start + _TREE_PAGE]
            (root / "tree" / f"{number}.json").write_text(json.dumps(page))

    def _asset(self, url: str, *, hashed: bool) -> dict[str, Any]:
        asset: dict[str, Any] = {"href": url}
        if hashed:
            path = self._root / url.split("/", 3)[3]
            asset["file:checksum"] = f"1220{_sha256(path)}"
        return asset

    def url_list(self, listener: str) -> Path:
        """Return a file with the URLs of the small files, one a line."""
        path = self._folder / f"urls-{listener}"
        path.write_text("".join(f"{url}\n" for url in self.small_files(listener)))
        return path

    def curl_list(self, listener: str) -> Path:
        """Return the same as a configuration of curl, which names what it writes as the URL."""
        path = self._folder / f"curl-{listener}"
        path.write_text(
            "".join(f'url = "{url}"\nremote-name\n' for url in self.small_files(listener))
        )
        return path

    def library_item(self, listener: str) -> str:
        """Return the URL of an item with a table, a Zarr folder and a raster, for libraries.

        Raises:
            ImportError: If the libraries that write them are not installed.
        """
        folder = self._root / "libraries"
        if not folder.exists():
            write_files = importlib.import_module("tests.library_files").write_files
            folder.mkdir()
            write_files(folder)
        files = (path for path in folder.rglob("*") if path.is_file())
        names = sorted(path.relative_to(folder).as_posix() for path in files)
        home = f"{self.origin(listener)}/libraries"
        assets = {name: self._asset(f"{home}/{quote(name)}", hashed=False) for name in names}
        return self._item(f"libraries-{listener}", assets, listener)

    def item_bytes(self, item_url: str) -> int:
        """Return the bytes of an item's own document."""
        return (self._root / item_url.rpartition("/")[2]).stat().st_size

    def _item(self, name: str, assets: Mapping[str, Any], listener: str) -> str:
        path = self._root / f"{name}.json"
        path.write_text(json.dumps(asset_item(name, assets)))
        return f"{self.origin(listener)}/{path.name}"

    @cached_property
    def _noise(self) -> list[bytes]:
        return [os.urandom(_BLOCK) for _ in range(_BLOCKS)]

    def folder_of(self, name: str, count: int, size: int) -> Path:
        """Return a folder with so many files of so many bytes."""
        folder = self._folder / name
        if not folder.exists():
            folder.mkdir()
            for number in range(count):
                self._write(folder / f"{number:05}.bin", size, different=count > 1)
        return folder

    def sha256_file(self, folder: Path) -> Path:
        """Return a file with the SHA-256 of the one file of a folder."""
        path = self._folder / f"{folder.name}.sha256"
        if not path.exists():
            path.write_text(_sha256(next(folder.iterdir())))
        return path

    # -- git --------------------------------------------------------------------------------

    @cached_property
    def git(self) -> tuple[str, str]:
        """The URLs of a GitLab and of its Git LFS server, which start when they are needed."""
        from tests.benchmarks.git_site import opened_git_site  # it needs this one

        return self._stack.enter_context(opened_git_site(self._folder / "git"))

    # -- documents --------------------------------------------------------------------------

    def api(self, listener: str, *, version: str, items: int) -> str:
        """Return the URL of the landing page of an API with so many items."""
        name = f"{listener}-{version}-{items}"
        base = f"{self.origin(listener)}/{name}/{API}"
        if not (self._root / name).exists():
            write_api(self._root / name, base=base, version=version, items=items)
        return f"{base}/"

    def static_collection(self, listener: str) -> str:
        """Return the URL of a collection whose items have files of their own."""
        name = f"{listener}-static"
        if not (self._root / name).exists():
            write_static_collection(
                self._root / name,
                base=f"{self.origin(listener)}/{name}",
                items=self.sizes.static_items,
            )
        return f"{self.origin(listener)}/{name}/collection.json"


@contextlib.contextmanager
def opened_site(folder: Path, sizes: Sizes) -> Iterator[Site]:
    """Start the servers, and end them.

    Raises:
        SystemExit: If nginx or openssl is missing.
    """
    nginx = _program("nginx", "On Debian and Ubuntu: apt install nginx-light.")
    _program("openssl", "It makes the certificate of the TLS listener.")
    ports = dict(zip(_LISTENERS, free_ports(len(_LISTENERS)), strict=True))
    (folder / "root").mkdir()
    (folder / "served.log").touch()
    _make_certificate(folder)
    (folder / "nginx.conf").write_text(
        _CONFIGURATION.format(
            # Started by root, nginx would work as somebody who may not read the folder.
            user="user root;" if os.geteuid() == 0 else "",
            host=HOST,
            plain=ports["near"],
            hinting=ports["hinting"],
            tls=ports["tls"],
            capped=ports["capped"],
            cap=CAP,
            root=folder / "root",
            api=API,
            project=_PROJECT,
            files=sizes.files,
            next_pages=" ".join(f"{n} {n + 1};" for n in range(1, sizes.files // _TREE_PAGE)),
        )
    )

    def slow_proxy(far: str, near: str) -> contextlib.AbstractContextManager[None]:
        arguments = str(ports[far]), str(ports[near]), str(sizes.round_trip)
        return running([sys.executable, "-m", "tests.benchmarks.latency", *arguments])

    with (
        running(
            [nginx, "-e", "error.log", "-p", str(folder), "-c", "nginx.conf", "-g", "daemon off;"]
        ),
        slow_proxy("far", "near"),
        slow_proxy("far-hinting", "hinting"),
    ):
        for port in ports.values():
            wait_for(port)
        with contextlib.ExitStack() as stack:
            yield Site(folder, sizes, ports, stack)


def _program(name: str, advice: str) -> str:
    # Where system services are kept is not on every user's PATH.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise SystemExit(f"The benchmarks need the program {name}, which is not here. {advice}")
    return found


@contextlib.contextmanager
def running(command: list[str], *, log: Path | None = None, **environment: str) -> Iterator[None]:
    """Run a program in the background, and end it."""
    with contextlib.ExitStack() as stack:
        output = None if log is None else stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, **environment}
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _make_certificate(folder: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=benchmark"),
            *("-addext", f"subjectAltName=IP:{HOST},DNS:localhost"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for(port: int) -> None:
    """Wait until something listens on a port."""
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"Nothing listens at {HOST}:{port}; see what nginx printed above.")


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()
