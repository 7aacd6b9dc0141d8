"""Real servers, started once per session: PgSTAC, rustac, giftless, and nginx as a proxy.

`servers/install.sh` installs them into the virtual environment `STAC_GITLAB_SERVERS_VENV`. If a
server cannot be started, its tests are skipped, or fail with `STAC_GITLAB_REQUIRE_SERVERS=1`. The
servers run in temporary folders on free ports of the loopback interface.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError
from urllib.request import urlopen

import pytest

VENV = "STAC_GITLAB_SERVERS_VENV"
REQUIRED = "STAC_GITLAB_REQUIRE_SERVERS"
POSTGRES = Path("/usr/lib/postgresql/15/bin")
PATIENCE = 60.0
"""Seconds to wait until a server responds."""

TOKEN = "glpat-gate-0123456789"
"""The token that the gate accepts. With the suffix `-guest` it gets a 403."""


def unavailable(why: str) -> NoReturn:
    """Skip the test, or fail it if the servers are required."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but {why}", pytrace=False)
    pytest.skip(f"{why}: run tests/servers/install.sh and set {VENV}")


def program(name: str) -> str:
    """Return the path of a program in the virtual environment of the servers."""
    venv = os.environ.get(VENV)
    if not venv:
        unavailable(f"{VENV} is not set")
    path = Path(venv) / "bin" / name
    if not path.exists():
        unavailable(f"{path} does not exist")
    return str(path)


def free_port(host: str = "127.0.0.1") -> int:
    with socket.create_server((host, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def as_user() -> list[str]:
    """Return the prefix for a command that must not run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


class Process:
    """A program in the background with a log file."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.log = log
        with log.open("wb") as output:
            self._running = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                cwd=log.parent,
            )

    def wait_for(self, url: str) -> None:
        """Wait until the server responds with any status."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._running.poll() is None:
            try:
                with urlopen(url, timeout=5):
                    return
            except URLError as error:
                if hasattr(error, "status"):
                    return
            except OSError:
                pass
            time.sleep(0.05)
        unavailable(f"{url} does not respond: {self.log.read_text(errors='replace')[-1500:]}")

    def stop(self) -> None:
        self._running.terminate()
        try:
            self._running.wait(15)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()


def run(*command: str, **environment: str) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        env={**os.environ, **environment},
        timeout=PATIENCE,
        check=False,
        cwd="/",
    )
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace")
        unavailable(f"{Path(command[0]).name} failed: {said[-1500:]}")


# -- contents -----------------------------------------------------------------------------------

TIED = "tied"
COUNT = 1000
FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)


def item(number: int, collection: str = TIED, prefix: str = "item") -> dict[str, Any]:
    """Return an item. Each ten consecutive items have the same datetime and the same place."""
    when = FIRST_DAY + timedelta(days=number // 10)
    west, south = -170.0 + (number // 10) * 3, -60.0 + (number // 10)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": f"{prefix}-{number:04}",
        "collection": collection,
        "geometry": {"type": "Point", "coordinates": [west, south]},
        "bbox": [west, south, west, south],
        "properties": {"datetime": when.isoformat().replace("+00:00", "Z"), "number": number},
        "links": [],
        "assets": {"data": {"href": f"https://files.example.org/{number}.tif", "roles": ["data"]}},
    }


def collection(name: str) -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": f"About {name}",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2020-01-01T00:00:00Z", None]]},
        },
        "links": [],
    }


COLLECTIONS = [TIED, "empty", *(f"small-{number:02}" for number in range(13))]
ITEMS = [item(number) for number in range(COUNT)]
SMALL = [item(number, f"small-{number:02}", "small") for number in range(13)]


# -- stac-fastapi on PgSTAC ---------------------------------------------------------------------


@dataclass(frozen=True)
class PgSTAC:
    """A running stac-fastapi on PgSTAC.

    Attributes:
        url: The URL of its landing page.
        port: Its port on the loopback interface.
    """

    url: str
    port: int


@pytest.fixture(scope="session")
def pgstac(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgSTAC]:
    """stac-fastapi on PgSTAC, with transactions and counts."""
    pypgstac, uvicorn = program("pypgstac"), program("uvicorn")
    if not (POSTGRES / "initdb").exists():
        unavailable(f"there is no PostgreSQL in {POSTGRES}")
    # The folder of the tests is closed to the user of the database.
    folder = folder_of_the_database(tmp_path_factory)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        database = _database(folder, stack)
        _load(folder, pypgstac, database)
        port = free_port()
        server = Process(
            [uvicorn, "--factory", "stac_fastapi.pgstac.app:create_app", "--port", str(port)],
            folder / "uvicorn.log",
            **database,
            ENABLE_TRANSACTIONS_EXTENSIONS="TRUE",
        )
        stack.callback(server.stop)
        server.wait_for(f"http://127.0.0.1:{port}/_mgmt/ping")
        yield PgSTAC(f"http://127.0.0.1:{port}/", port)


def folder_of_the_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the user of the database owns."""
    if os.geteuid() != 0:
        return tmp_path_factory.mktemp("servers")
    folder = tempfile.mkdtemp(prefix="stac-gitlab-servers-")
    shutil.chown(folder, "postgres", "postgres")
    return Path(folder)


def _database(folder: Path, stack: contextlib.ExitStack) -> dict[str, str]:
    port = free_port()
    cluster = folder / "cluster"
    run(
        *as_user(),
        *(str(POSTGRES / "initdb"), "-D", str(cluster), "-U", "stac", "--auth=trust"),
        *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
    )
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
    }
    options = [f"-c{name}={value}" for name, value in settings.items()]
    command = [*as_user(), str(POSTGRES / "postgres"), "-D", str(cluster), *options]
    server = Process(command, folder / "postgres.log")
    stack.callback(server.stop)
    ready = [str(POSTGRES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    deadline = time.monotonic() + PATIENCE
    while subprocess.run(ready, check=False).returncode:
        if time.monotonic() > deadline:
            unavailable(f"PostgreSQL does not start: {server.log.read_text(errors='replace')}")
        time.sleep(0.05)
    database = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGUSER": "stac",
        "PGPASSWORD": "unused",
        "PGDATABASE": "stac",
    }
    run(str(POSTGRES / "createdb"), "stac", **database)
    return database


def _load(folder: Path, pypgstac: str, database: dict[str, str]) -> None:
    run(pypgstac, "migrate", **database)
    for table, rows in (
        ("collections", [collection(name) for name in COLLECTIONS]),
        ("items", [*ITEMS, *SMALL]),
    ):
        file = folder / f"{table}.ndjson"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        run(pypgstac, "load", table, str(file), "--method", "insert", **database)
    count = "UPDATE pgstac.pgstac_settings SET value = 'on' WHERE name = 'context'"
    run(str(POSTGRES / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-c", count, **database)


# -- rustac -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rustac(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """rustac with the same items in memory. It pages in another way than PgSTAC."""
    command = program("rustac")
    folder = tmp_path_factory.mktemp("rustac")
    files = []
    for name in COLLECTIONS[:3]:
        files.append(folder / f"{name}.json")
        files[-1].write_text(json.dumps(collection(name)))
    items = {"type": "FeatureCollection", "features": [*ITEMS, SMALL[0]]}
    files.append(folder / "items.json")
    files[-1].write_text(json.dumps(items))
    port = free_port()
    server = Process(
        [command, "serve", "-a", f"127.0.0.1:{port}", *map(str, files)], folder / "rustac.log"
    )
    try:
        server.wait_for(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.stop()


# -- giftless -----------------------------------------------------------------------------------

_GIFTLESS = """
AUTH_PROVIDERS: ["giftless.auth.allow_anon:read_write"]
TRANSFER_ADAPTERS:
  basic:
    factory: giftless.transfer.basic_streaming:factory
    options:
      storage_class: giftless.storage.local_storage:LocalStorage
      storage_options: {{path: "{folder}/objects"}}
# git-lfs asks for ever if a permission ends before the download begins.
PRE_AUTHORIZED_ACTION_PROVIDER:
  factory: giftless.auth.jwt:factory
  options:
    algorithm: HS256
    private_key: only-for-tests
    key_id: giftless-internal-jwt-key
    default_lifetime: 3600
"""


@pytest.fixture(scope="session")
def giftless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Git LFS server giftless, which needs no token."""
    flask = program("flask")
    folder = tmp_path_factory.mktemp("giftless")
    settings = folder / "giftless.yaml"
    settings.write_text(_GIFTLESS.format(folder=folder))
    port = free_port()
    server = Process(
        [flask, "--app", "giftless.wsgi_entrypoint:app", "run", "-p", str(port)],
        folder / "giftless.log",
        GIFTLESS_CONFIG_FILE=str(settings),
    )
    try:
        server.wait_for(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


# -- nginx before PgSTAC ------------------------------------------------------------------------

_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/json;

    log_format audit '$server_addr $request_method $request_uri $status '
        'x-gitlab-token="$http_x_gitlab_token" private-token="$http_private_token" '
        'authorization="$http_authorization"';
    access_log {folder}/audit.log audit;

    map "$http_x_gitlab_token|$http_private_token|$http_authorization" $who {{
        default            "stranger";
        "||"               "nobody";
        "{token}||"        "member";
        "|{token}|"        "member";
        "||Bearer {token}" "member";
        "{token}-guest||"  "guest";
    }}
    map $who $refusal {{
        default  "";
        stranger 401;
        nobody   401;
        guest    403;
    }}
    limit_req_zone $binary_remote_addr zone=slow:1m rate=5r/s;

    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Port $server_port;

    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        error_page 401 = @unauthorized;
        error_page 403 = @forbidden;

        location / {{
            if ($refusal = 401) {{ return 401; }}
            if ($refusal = 403) {{ return 403; }}
            proxy_pass http://127.0.0.1:{upstream};
        }}
        location @unauthorized {{ return 401 '{{"message": "401 Unauthorized"}}'; }}
        location @forbidden {{ return 403 '{{"message": "403 Forbidden"}}'; }}

        # Files are stored at another origin.
        location /files/ {{
            if ($refusal = 401) {{ return 401; }}
            return 302 http://127.0.0.2:{store}$request_uri;
        }}

        # The web routes of GitLab, which ignore tokens, and its API, which does not.
        location ~ ^/[^/]+/[^/]+/-/(raw|blob)/ {{ return 302 /users/sign_in; }}
        location = /users/sign_in {{
            default_type text/html;
            return 200 '<!DOCTYPE html><html><form action="/users/sign_in"></form></html>';
        }}
        location ~ ^/api/v4/projects/alpine/catalog/repository/files/(.+)/raw$ {{
            if ($refusal = 401) {{ return 401; }}
            alias {folder}/files/$1;
        }}
    }}
    server {{
        listen 127.0.0.1:{limited};
        limit_req zone=slow burst=2 nodelay;
        limit_req_status 429;
        error_page 429 = @later;
        location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
        location @later {{
            add_header Retry-After 1 always;
            return 429 '{{"message": "Retry later"}}';
        }}
    }}
    server {{
        listen 127.0.0.2:{store};
        location /files/ {{ root {folder}; default_type application/octet-stream; }}
    }}
}}
"""


@dataclass(frozen=True)
class Gate:
    """nginx before PgSTAC.

    Attributes:
        url: The landing page over TLS. Each request needs a token.
        limited_url: The landing page without tokens, limited to twenty requests per second.
        authority: The certificate of the authority that signed that of the server.
        folder: Contains `audit.log` and `files/`, which are served from another origin.
    """

    url: str
    limited_url: str
    authority: Path
    folder: Path

    def audit(self) -> list[str]:
        """Return the requests since the last call, with the headers that may contain tokens."""
        log = self.folder / "audit.log"
        # nginx writes the line after the client has received the response.
        time.sleep(0.05)
        lines = log.read_text().splitlines()
        with log.open("w"):
            pass
        return lines


@pytest.fixture(scope="session")
def gate(pgstac: PgSTAC, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """nginx before PgSTAC, with a certificate that a new authority signed."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        unavailable("nginx is not installed")
    folder = tmp_path_factory.mktemp("gate")
    _certificates(folder)
    (folder / "files").mkdir()
    port, limited, store = free_port(), free_port(), free_port("127.0.0.2")
    settings = _NGINX.format(
        folder=folder,
        user="user root;" if os.geteuid() == 0 else "",
        token=TOKEN,
        port=port,
        limited=limited,
        store=store,
        upstream=pgstac.port,
    )
    (folder / "nginx.conf").write_text(settings)
    command = [nginx, "-p", str(folder), "-c", "nginx.conf", "-e", str(folder / "error.log")]
    server = Process(command, folder / "nginx.log")
    try:
        server.wait_for(f"http://127.0.0.1:{limited}/")
        (folder / "audit.log").write_text("")
        yield Gate(
            f"https://127.0.0.1:{port}/",
            f"http://127.0.0.1:{limited}/",
            folder / "authority.pem",
            folder,
        )
    finally:
        server.stop()


def _certificates(folder: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        unavailable("openssl is not installed")
    authority, key = str(folder / "authority.pem"), str(folder / "authority.key")
    server, server_key = str(folder / "server.pem"), str(folder / "server.key")
    kind = ["req", "-x509", "-nodes", "-days", "2", "-newkey", "rsa:2048"]
    run(
        *(openssl, *kind, "-subj", "/CN=An authority for tests", "-keyout", key, "-out", authority),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    run(
        *(openssl, *kind, "-subj", "/CN=127.0.0.1", "-keyout", server_key, "-out", server),
        *("-CA", authority, "-CAkey", key, "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
    )
