"""What publishing goes to: the Git LFS server giftless, and a GitLab over real repositories."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.site import HOST, free_ports, running, wait_for

VENV = "STAC_GITLAB_SERVERS_VENV"
"""The environment variable with the virtual environment in which giftless is."""

TOKEN = "glpat-publisher-0123456789"
GROUP = "alpine"

_GIFTLESS = """
AUTH_PROVIDERS: ["giftless.auth.allow_anon:read_write"]
TRANSFER_ADAPTERS:
  basic:
    factory: giftless.transfer.basic_streaming:factory
    options:
      storage_class: giftless.storage.local_storage:LocalStorage
      storage_options: {{path: "{folder}/objects"}}
"""


def giftless_program() -> str:
    """Return the path of the program that runs giftless, which may not exist."""
    return str(Path(os.environ.get(VENV, "/nonexistent"), "bin", "flask"))


@contextlib.contextmanager
def opened_git_site(folder: Path) -> Iterator[tuple[str, str]]:
    """Start the servers, and end them; return the URLs of GitLab and of giftless."""
    folder.mkdir()
    lfs, gitlab = free_ports(2)
    settings = folder / "giftless.yaml"
    settings.write_text(_GIFTLESS.format(folder=folder))
    flask = [giftless_program(), "--app", "giftless.wsgi_entrypoint:app", "run", "-p", str(lfs)]
    lfs_url = f"http://{HOST}:{lfs}"
    host = [sys.executable, "-m", __name__, str(folder / "repositories"), str(gitlab), lfs_url]
    log = folder / "giftless.log"
    with running(flask, log=log, GIFTLESS_CONFIG_FILE=str(settings)), running(host):
        wait_for(lfs)
        wait_for(gitlab)
        yield f"http://{HOST}:{gitlab}", lfs_url


def _serve(folder: str, port: str, lfs_url: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from stand_in.git_host import GitHost  # found by this path only

    host = GitHost(Path(folder), TOKEN)
    host.lfs_server = lfs_url
    host.start(int(port))
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
