"""The transport adapter of our session, and what stands in for it under tools for tests."""

from __future__ import annotations

import http.client
import logging
import queue
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from http.client import HTTPException
from types import FunctionType
from typing import Any, cast
from weakref import WeakValueDictionary

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ProtocolError

from stac_gitlab.auth.origins import PREPARED_URL
from stac_gitlab.http.body import body_reader
from stac_gitlab.http.transport import OUR_CONNECTIONS, DeadlineConnection, DeadlineResponse
from stac_gitlab.redaction import redacting_logger


class DeadlineAdapter(HTTPAdapter):
    """The adapter of requests, with connections that keep the deadline of the reading thread.

    It retries nothing, because all retries happen in one place.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Begin without connections, as requests calls it."""
        # Those without a proxy, by origin and certificates. A pool that nothing else refers to is
        # closed.
        self._pools: WeakValueDictionary[tuple[Any, ...], HTTPConnectionPool]
        self._pools = WeakValueDictionary()
        super().init_poolmanager(*args, **kwargs)

    def close(self) -> None:
        """Close all connections, as requests calls it."""
        self._pools.clear()
        super().close()

    def send_over_idle(
        self,
        request: requests.PreparedRequest,
        *,
        timeout: Any,
        stream: bool = False,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response | None:
        """Send a plain GET over an open and idle connection, without requests and urllib3.

        For a small file, their layers take longer than the transfer. They open each connection,
        and send everything else.

        Args:
            request: The request.
            timeout: Seconds to wait for a connection, and between two packets of the response.
            stream: False to read the body at once, which only requests does.
            verify: As ``requests.Session.send`` takes it, like the rest.

        Returns:
            The response; None, and nothing was sent, if the request has to pass these layers.
        """
        url = PREPARED_URL.fullmatch(request.url or "")
        if url is None or request.method != "GET" or request.body is not None:
            return None
        pool = self._pools.get((url[1], verify, cert))
        wait = timeout[1] if isinstance(timeout, tuple) else timeout
        is_plain = stream and not proxies and isinstance(wait, (int, float))
        if pool is None or not is_plain or _are_layers_replaced():
            return None
        return _get(pool, url[2], request, wait)

    def get_connection_with_tls_context(
        self,
        request: requests.PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: str | tuple[str, str] | None = None,
    ) -> urllib3.HTTPConnectionPool:
        """Return the connection pool for a request, as requests calls it."""
        pool = cast(
            "urllib3.HTTPConnectionPool",
            super().get_connection_with_tls_context(request, verify, proxies, cert),
        )
        # Not once and for all: recorders such as VCR.py replace the class while a test runs. The
        # connections of a SOCKS proxy are of another class, which knows how to reach it.
        usual = type(pool).ConnectionCls
        pool.ConnectionCls = OUR_CONNECTIONS.get(usual, usual)
        url = PREPARED_URL.fullmatch(request.url or "")
        if url is not None and not proxies:
            self._pools[url[1], verify, cert] = pool
        return pool


def _get(
    pool: HTTPConnectionPool, target: str, request: requests.PreparedRequest, timeout: float
) -> requests.Response | None:
    idle = pool.pool
    try:
        connection = None if idle is None else idle.get(block=False)
    except queue.Empty:
        return None
    received = None
    started = time.perf_counter()
    try:
        if isinstance(connection, DeadlineConnection) and connection.is_connected:
            received = connection.get(target, request.headers, timeout)
    except BaseException as error:
        if connection is not None:
            connection.close()
        # What requests makes of such errors.
        if isinstance(error, ssl.SSLError):
            raise requests.exceptions.SSLError(error, request=request) from error
        if isinstance(error, TimeoutError):
            text = f"Read timed out. (read timeout={timeout:g})"
            raise requests.ReadTimeout(text, request=request) from error
        if isinstance(error, (OSError, HTTPException)):
            aborted = ProtocolError("Connection aborted.", error)
            raise requests.ConnectionError(aborted, request=request) from error
        raise
    finally:
        if received is None:
            # It may be a place for a connection that is not open yet, or one that urllib3 closes.
            pool._put_conn(connection)
    if received is None or connection is None:
        return None
    received.on_end = partial(_give_back, pool, connection)
    response = _Response()
    response.raw = received
    response.request, response.url = request, request.url or ""
    response.status_code, response.reason = received.status, received.reason
    response.headers = received.fields
    response.encoding = get_encoding_from_headers(response.headers)
    response.elapsed = timedelta(seconds=time.perf_counter() - started)
    return response


def _give_back(pool: HTTPConnectionPool, connection: DeadlineConnection, is_read: bool) -> None:
    """Return the connection of a response to its pool, or close it if the response has a rest."""
    if is_read and connection.is_own:
        pool._put_conn(connection)
    else:
        # Perhaps the garbage collector closes the response, while this thread locks the pool.
        connection.close()


class _Response(requests.Response):
    """A response whose `raw` is that of a connection, without the stream of urllib3."""

    def iter_content(self, *args: Any, **kwargs: Any) -> Any:
        """Yield the decoded body, as requests does it."""
        if isinstance(self.raw, DeadlineResponse):
            self.raw.stream = partial(_stream, self)
        return super().iter_content(*args, **kwargs)


def _stream(response: requests.Response, size: int, **_: Any) -> Iterator[bytes]:
    read = body_reader(response)
    while piece := read(size):
        yield piece


# What `send_over_idle` leaves out. Tools that record, measure or refuse requests replace it.
_LEFT_OUT = tuple(
    (owner, name, vars(sys.modules[owner.__module__]))
    for owner, names in {
        requests.Session: ["send"],
        HTTPAdapter: ["build_response", "get_connection_with_tls_context", "send"],
        HTTPConnectionPool: ["_get_conn", "_make_request", "urlopen"],
        HTTPConnection: ["getresponse", "putheader", "putrequest", "request"],
        http.client.HTTPConnection: [
            *("endheaders", "getresponse", "putheader", "putrequest", "request", "send"),
        ],
    }.items()
    for name in names
)
# urllib3 logs the URLs of all requests, and a redirect may have put a secret into one.
_urllib3_logger = redacting_logger("urllib3.connectionpool")


def _are_layers_replaced() -> bool:
    """Tell whether the layers of requests and urllib3 are not their own, or log requests."""
    is_logged = _urllib3_logger.isEnabledFor(logging.DEBUG)
    return is_logged or are_connections_replaced() or not all(map(_is_genuine, _LEFT_OUT))


def _is_genuine(layer: tuple[type, str, dict[str, Any]]) -> bool:
    owner, name, own = layer
    function = getattr(owner, name)
    # The type as well: a proxy has the globals of what it wraps.
    return type(function) is FunctionType and function.__globals__ is own


class StandInAdapter(BaseAdapter):
    """Sends requests through a tool for tests, such as VCR.py.

    Args:
        send: Sends a request, as adapters do.
    """

    def __init__(self, send: Callable[..., requests.Response]) -> None:
        super().__init__()
        self._send = send

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        """Send a request, as requests calls it."""
        request = request.copy()
        # VCR.py records plain strings only.
        request.headers = CaseInsensitiveDict({n: str(v) for n, v in request.headers.items()})
        return self._send(request, *args, **kwargs)

    def close(self) -> None:
        """Do nothing: the owner of `send` closes what it has opened."""


def are_connections_replaced() -> bool:
    """Tell whether a tool such as VCR.py has replaced the connections of all pools."""
    usual = {HTTPConnectionPool.ConnectionCls, HTTPSConnectionPool.ConnectionCls}
    return not usual <= OUR_CONNECTIONS.keys()


def drop_inherited_connections(adapter: HTTPAdapter) -> None:
    """Close a forked child's copies of the idle connections of its parent.

    Closing a copy sends nothing, under TLS neither. Locks are replaced and not acquired, because a
    thread of the parent may have held them at the fork.
    """
    for manager in (adapter.poolmanager, *adapter.proxy_manager.values()):
        manager.pools.lock = threading.RLock()
        for key in manager.pools.keys():  # noqa: SIM118  # no dict
            idle = manager.pools[key].pool
            if idle is None:
                continue
            connections = [connection for connection in idle.queue if connection is not None]
            queue.Queue.__init__(idle, idle.maxsize)
            for _ in range(idle.maxsize):
                idle.put(None)
            for connection in connections:
                connection.close()
