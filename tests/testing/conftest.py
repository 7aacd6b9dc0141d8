"""Requests to the `hub` fixture of a module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from stand_in.samples import Get

from stac_gitlab.testing import SharingHubServer


@pytest.fixture
def get(hub: SharingHubServer) -> Iterator[Get]:
    """Send a GET to a path of the hub, with the token of its owner by default."""
    with requests.Session() as session:
        session.trust_env = False

        def ask(
            path: str, token: str | None = "glpat-owner", method: str = "GET", **options: Any
        ) -> requests.Response:
            headers = {"Accept-Encoding": "identity", **options.pop("headers", {})}
            if token:
                headers["X-Gitlab-Token"] = token
            url = path if path.startswith("http") else hub.url + path
            return session.request(method, url, headers=headers, timeout=5, **options)

        yield ask
