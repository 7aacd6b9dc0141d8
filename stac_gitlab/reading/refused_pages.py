"""Pages that a server refuses because of one item, read around that item.

The page is requested in parts, and so is the part that fails, until a single item is left. That
item comes in a shorter form, if the server has one, and the listing continues after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from stac_gitlab.errors import (
    AuthenticationError,
    HTTPStatusError,
    InvalidResponseError,
    NotFoundError,
    OfflineError,
    RateLimitError,
    ServerError,
    STACGitLabError,
)
from stac_gitlab.reading.objects import check_feature, id_of
from stac_gitlab.reading.paging import Page, PageRequest, with_parameters
from stac_gitlab.reading.stac_io import GitLabStacIO

PARTIAL = "stac_gitlab:partial"
"""The property that marks a partial item."""

# After this number of bad items in a row, the rest of the page is assumed to be bad.
_RUN = 3
ShortForm = Mapping[str, str]
# A page that the server refused is not in the cache, but its parts are. Offline, they are read.
_REFUSALS = (ServerError, OfflineError)
_Refusing = ServerError | OfflineError


class PartialItem(dict[str, Any]):
    """An item in a short form, because the server fails on the whole.

    Attributes:
        error: Why it is not whole.
    """

    def __init__(self, document: Mapping[str, Any], error: STACGitLabError) -> None:
        super().__init__(document)
        self["properties"] = {**document["properties"], PARTIAL: True}
        self.error = error


@dataclass(frozen=True)
class UnreadableItem:
    """Replaces an item on a page that could not be read in any form."""

    item_id: str | None
    error: STACGitLabError


BadItem = PartialItem | UnreadableItem


@dataclass(frozen=True)
class Refusal:
    """What a reader remembers about a page that was refused.

    Attributes:
        whole: The number of items before the first bad one.
        form: The short form in which the bad items came.
        errors: The errors of the bad items, by id.
        dates: The dates of the bad items, by id. With another date, they may be good again.
    """

    whole: int
    form: ShortForm
    errors: Mapping[str, STACGitLabError]
    dates: Mapping[str, Any]


def read_items_page(stac_io: GitLabStacIO, request: PageRequest) -> Page:
    """Return a page, or the beginning of it up to an item that the server fails on.

    Raises:
        STACGitLabError: If the page cannot be read, not even in parts.
    """
    forms = stac_io.session.dialect_of(request.href).short_forms(request.href)
    query = dict(parse_qsl(urlsplit(request.href).query))
    # Without a limit the server has one of its own, which may be any. With ids it has none.
    limit = query.get("limit", str(stac_io.page_size))
    if ids := _ids_in(request):
        limit = str(len(ids))
    if not forms or request.method != "GET" or not limit.isdecimal() or not int(limit):
        return stac_io.read_page(request)
    known = stac_io.refusals.pop(request.href, None)
    if known is not None:
        page = _Parts(stac_io, request, forms, int(limit)).read_again(known)
        if page is not None:
            return page
    try:
        return _read_once(stac_io, request)
    except _REFUSALS as error:
        if not _is_refusal(error):
            raise
        return _Parts(stac_io, request, forms, int(limit)).read(error)


def _read_once(stac_io: GitLabStacIO, request: PageRequest) -> Page:
    """Read a page without another attempt after a 500, which is likely to be permanent."""
    policy = stac_io.session.retry
    return stac_io.read_page(request, retry=policy.replace(statuses=policy.statuses - {500}))


def _is_refusal(error: _Refusing) -> bool:
    return isinstance(error, OfflineError) or error.status_code == 500


class _Parts:
    """The parts of one page that was refused.

    Args:
        forms: The short forms of the page, the most complete one first.
        limit: The number of items on the page.
    """

    def __init__(
        self, stac_io: GitLabStacIO, request: PageRequest, forms: tuple[ShortForm, ...], limit: int
    ) -> None:
        self._io = stac_io
        self._request = request
        self._forms = forms
        self._limit = limit
        self._listed: list[Any] = []
        self._bad: dict[str, BadItem] = {}
        self._dates: dict[str, Any] = {}
        self._bad_forms: list[ShortForm] = []
        # The part that was read last, and the request for what follows it, if anything does.
        self._last: Page | None = None
        self._rest: PageRequest | None = request
        # Whether a part failed after another one had come. Then it was not a short failure of all.
        self._has_failed_again = False

    @property
    def _has_whole_items(self) -> bool:
        return len(self._listed) > len(self._bad)

    def read(self, refused: _Refusing) -> Page:
        """Return the page up to its first bad item, or to the first good one after that."""
        failure: _Refusing | None = self._narrow_down(refused)
        while failure is not None and self._rest is not None:
            self._take_suspect(failure, refused)
            if self._has_whole_items or self._rest is None:
                break
            if len(self._bad) == _RUN:
                self._take_run(failure)
                break
            failure = self._take_whole(1)
        return self._page()

    def read_again(self, known: Refusal) -> Page | None:
        """Return the page as it was read before; None if it has changed."""
        if known.whole and self._take_whole(known.whole) is not None:
            return None
        if self._rest is None:
            return self._page()
        try:
            part = _read_once(self._io, self._part(len(known.errors), known.form))
        except ServerError:
            return None
        if {id_of(each): _date_of(each) for each in part.features()} != known.dates:
            return None
        for each in part.features():
            self._add_bad(each, known.errors[each["id"]], known.form)
        self._advance(part, len(known.errors))
        return self._page()

    def _narrow_down(self, error: _Refusing) -> _Refusing:
        """Read what can be read before the first bad item; return the latest error."""
        suspects = self._limit
        requests_left = (suspects - 1).bit_length()
        while suspects > 1 and self._rest is not None:
            requests_left -= 1
            size = _part_size(suspects, requests_left)
            failure = self._take_whole(size)
            suspects = suspects - size if failure is None else size
            error = failure or error
        return error

    def _take_whole(self, size: int) -> _Refusing | None:
        """Read the next few items; return the error if one of them is bad."""
        try:
            part = _read_once(self._io, self._part(size, {}))
        except _REFUSALS as error:
            if not _is_refusal(error):
                raise
            self._has_failed_again |= self._has_whole_items
            return error
        self._listed += part.features()
        self._advance(part, size)
        return None

    def _take_suspect(self, error: _Refusing, refused: _Refusing) -> None:
        """Read the next item in a short form, and once more as a whole."""
        part, form = self._short_part(refused)
        for listed in part.features()[:1]:
            is_sure = self._has_whole_items and (
                self._has_failed_again or form is not self._forms[0]
            )
            if is_sure or self._bad:
                # All requests with this item have failed, and requests without it have not.
                self._add_bad(listed, error, form)
                continue
            try:
                request = PageRequest(self._item_url(listed))
                self._listed.append(_read_once(self._io, request).document)
            except (*_REFUSALS, NotFoundError, InvalidResponseError) as failure:
                if isinstance(failure, _REFUSALS) and not _is_refusal(failure):
                    raise
                self._add_bad(listed, failure, form)
        self._advance(part, 1)

    def _short_part(self, refused: _Refusing) -> tuple[Page, ShortForm]:
        for form in self._forms:
            request = self._part(1, form)
            try:
                if form is self._forms[-1]:
                    return self._io.read_page(request), form
                return _read_once(self._io, request), form
            except (AuthenticationError, RateLimitError):
                raise
            except (HTTPStatusError, OfflineError):
                continue
        # The server has no such forms, or is down.
        raise self._explained(refused)

    def _explained(self, refused: _Refusing) -> _Refusing:
        """Return the error of a page with filters as one that says how to list it without them."""
        query = dict(parse_qsl(urlsplit(self._request.href).query))
        filters = [name for name in ("bbox", "datetime", "intersects") if name in query]
        if not filters or not refused.args:
            return refused
        explained = copy(refused)
        advice = (
            "Maybe it cannot read one of the items, and so not filter them. List without "
            f"{' and '.join(filters)} to leave that one out, and filter the items yourself."
        )
        explained.extend(advice)
        return explained

    def _take_run(self, error: _Refusing) -> None:
        """Read a whole page in the best short form: probably no item of it can be read."""
        try:
            part = _read_once(self._io, self._part(self._limit, self._forms[0]))
        except _REFUSALS:
            return
        for listed in part.features():
            self._add_bad(listed, error, self._forms[0])
        self._advance(part, self._limit)

    def _add_bad(self, listed: Any, error: STACGitLabError, form: ShortForm) -> None:
        url = self._item_url(listed)
        if error.args and url not in str(error):
            error = copy(error)
            error.args = (f"{url}: each page with this item fails. {error.args[0]}",)
        name = id_of(listed)
        bad: BadItem = UnreadableItem(None if name is None else str(name), error)
        if not isinstance(error, NotFoundError):
            with suppress(InvalidResponseError):
                check_feature(listed, url=url)
                bad = PartialItem(listed, error)
        self._listed.append(bad)
        self._bad[id_of(listed)] = bad
        self._dates[id_of(listed)] = _date_of(listed)
        self._bad_forms.append(form)

    def _item_url(self, listed: Any) -> str:
        page_url = self._request.href
        url = self._io.session.dialect_of(page_url).item_url(page_url, str(id_of(listed)))
        return urlunsplit(urlsplit(url)._replace(query="", fragment=""))

    def _part(self, size: int, form: ShortForm) -> PageRequest:
        rest = self._rest or self._request
        ids = _ids_in(rest)
        first = {"ids": ",".join(ids[:size])} if ids else {"limit": str(size)}
        return replace(rest, href=with_parameters(rest.href, {**form, **first}))

    def _advance(self, part: Page, size: int) -> None:
        """Continue after a part, with the limit and the form of the original request."""
        self._last = part
        if self._rest is not None and (ids := _ids_in(self._rest)):
            # Items that the server does not have are not in the part.
            href = with_parameters(self._rest.href, {"ids": ",".join(ids[size:])})
            self._rest = replace(self._rest, href=href) if ids[size:] else None
            return
        link = part.next_link()
        if link is None or not isinstance(link.get("href"), str):
            self._rest = None
            return
        names = {"limit", *chain.from_iterable(self._forms)}
        asked = dict(parse_qsl(urlsplit(self._request.href).query, keep_blank_values=True))
        href = with_parameters(link["href"], {name: asked.get(name) for name in names})
        self._rest = self._request.followed_by({**link, "href": href}, page_url=part.url)

    def _page(self) -> Page:
        if self._bad and all(form == self._bad_forms[0] for form in self._bad_forms):
            self._io.refusals[self._request.href] = Refusal(
                next(n for n, each in enumerate(self._listed) if isinstance(each, BadItem)),
                self._bad_forms[0],
                {name: bad.error for name, bad in self._bad.items()},
                self._dates,
            )
        last = cast("Page", self._last)
        links = [] if self._rest is None else [{"rel": "next", "href": self._rest.href}]
        return Page(last.url, {**last.document, "features": self._listed, "links": links})


def _part_size(suspects: int, requests_left: int) -> int:
    """Return the size of the next part: a quarter, or more if few requests are left after it.

    A part that fails costs about as much as one that does not, and is requested again. The smaller
    the parts, the fewer items are requested twice.
    """
    return max(-(-suspects // 4), suspects - (1 << requests_left))


def _ids_in(request: PageRequest) -> list[str]:
    """Return the ids that a search is limited to, if any."""
    ids = dict(parse_qsl(urlsplit(request.href).query)).get("ids")
    return ids.split(",") if ids else []


def _date_of(listed: Any) -> Any:
    properties = listed.get("properties") if isinstance(listed, Mapping) else None
    return properties.get("datetime") if isinstance(properties, Mapping) else None
