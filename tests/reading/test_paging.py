"""Pages of a STAC API are followed as its specification says, bad servers included."""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from stac_documents import a

from stac_gitlab import (
    GitLabStacIO,
    IncompleteListingWarning,
    InvalidResponseError,
    Limits,
    RetryPolicy,
    UnreadableItemWarning,
)
from stac_gitlab.auth import Origin
from stac_gitlab.reading import paging
from stac_gitlab.reading.listing import list_items
from stac_gitlab.reading.paging import Page, PageRequest, Pages, with_limit, with_parameters
from stac_gitlab.testing import (
    Answer,
    Fault,
    LoopbackServer,
    RecordedRequest,
    SharingHubServer,
    generated_projects,
)

ITEMS = "https://api.example.org/collections/c/items"


def page(*names: str, **following: Any) -> dict[str, Any]:
    links = [{"rel": "next", **following}] if following else []
    return {
        "type": "FeatureCollection",
        "features": [a("item", id=name) for name in names],
        "links": [{"rel": "self", "href": ITEMS}, *links],
    }


def everything(_listed: Any, _url: str) -> bool:
    return True


class Scripted:
    """Answers requests from a table of URLs, and notes what was asked."""

    def __init__(self, answers: Mapping[str, dict[str, Any]]) -> None:
        self.answers = answers
        self.asked: list[PageRequest] = []

    def __call__(self, request: PageRequest) -> Page:
        self.asked.append(request)
        return Page(request.href, self.answers[request.href])


def ids(pages: Pages) -> list[str]:
    return [listed["id"] for listed in pages.listed(everything)]


def followed(link: Mapping[str, Any], **asked: Any) -> PageRequest:
    return PageRequest(ITEMS, **asked).followed_by(link, page_url=ITEMS)


# -- the next request -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "meant"),
    [
        ("https://api.example.org/x?after=b%2Fc&limit=2", None),
        ("?offset=2", f"{ITEMS}?offset=2"),
        ("items?token=next:a", "https://api.example.org/collections/c/items?token=next:a"),
        ("/other/items?page=2", "https://api.example.org/other/items?page=2"),
        ("//mirror.example.org/items?skip=2", "https://mirror.example.org/items?skip=2"),
    ],
    ids=["cursor", "offset", "token", "page", "skip"],
)
def test_a_next_href_is_followed_verbatim_or_relative_to_its_page(
    href: str, meant: str | None
) -> None:
    request = followed({"rel": "next", "href": href})
    assert request == PageRequest(meant or href)


def test_a_post_link_sends_its_body_and_headers_and_forgets_the_original_ones() -> None:
    link = {"href": ITEMS, "method": "POST", "body": {"token": "2"}, "headers": {"X-Page": "2"}}
    request = followed(link, method="POST", body={"limit": 5}, headers={"X-Old": "1"})
    assert request == PageRequest(ITEMS, "POST", {"X-Page": "2"}, {"token": "2"})


def test_merge_adds_headers_and_body_to_the_original_ones() -> None:
    link = {
        "href": ITEMS,
        "method": "POST",
        "body": {"token": "2", "limit": 9},
        "headers": {"X-Page": "2"},
        "merge": True,
    }
    request = followed(link, method="POST", body={"limit": 5, "q": "a"}, headers={"X-Old": "1"})
    assert request.headers == {"X-Old": "1", "X-Page": "2"}
    assert request.body == {"limit": 9, "q": "a", "token": "2"}


def test_a_post_link_with_only_headers_keeps_the_body() -> None:
    link = {"href": ITEMS, "method": "POST", "headers": {"X-Page": "2"}}
    request = followed(link, method="POST", body={"limit": 5})
    assert request == PageRequest(ITEMS, "POST", {"X-Page": "2"}, {"limit": 5})


def test_a_merging_get_link_sends_no_body() -> None:
    link = {"href": ITEMS, "merge": True, "body": {"token": "2"}, "headers": {"X-Page": "2"}}
    assert followed(link, headers={"X-Old": "1"}) == PageRequest(
        ITEMS, "GET", {"X-Old": "1", "X-Page": "2"}
    )


@pytest.mark.parametrize("method", ["post", "Post", "POST"])
def test_a_method_counts_in_any_letter_case(method: str) -> None:
    assert followed({"href": ITEMS, "method": method, "body": {}}).method == "POST"


def test_header_values_in_lists_are_joined() -> None:
    request = followed({"href": ITEMS, "headers": {"X-Page": ["a", "b"], "X-Size": 5}})
    assert request.headers == {"X-Page": "a, b", "X-Size": "5"}


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "X-Gitlab-Token", "PRIVATE-TOKEN", "Cookie", "Host", "Content-Length"),
        *("private_token", "X_HTTP_Method_Override"),
    ],
)
def test_a_server_sets_neither_credentials_nor_framing(name: str) -> None:
    assert followed({"href": ITEMS, "headers": {name: "x"}}).headers == {}


@pytest.mark.parametrize(
    "name",
    [
        *("X-HTTP-Method-Override", "Expect", "Upgrade", "Accept-Encoding", "Connection", "Host"),
        *("Proxy-Authorization", "Proxy-Connection", "Transfer-Encoding", "Content-Length", "TE"),
        *("Sudo", "X-Forwarded-For", "X_Forwarded_Host", "Forwarded", "X-Original-URL"),
        *("X-Rewrite-URL", "X-Original-Method"),
    ],
)
def test_a_server_makes_no_other_request_of_it(name: str) -> None:
    assert followed({"href": ITEMS, "headers": {name: "DELETE"}}).headers == {}


def test_a_get_link_sends_no_body() -> None:
    assert followed({"href": ITEMS, "body": {"token": "2"}}).body is None


@pytest.mark.parametrize(
    "href",
    [
        "https://hub.example.org/api/v4/user/keys",  # with the token for it, from a stranger's page
        "http://api.example.org/collections/c/items",
        "https://api.example.org/api/v4/user/keys",  # from a page that may be anyone's file
        "/",
    ],
)
def test_a_page_does_not_make_us_post_elsewhere(href: str) -> None:
    link = {"href": href, "method": "POST", "body": {"key": "ssh-ed25519"}}
    with pytest.raises(InvalidResponseError, match="a POST to another address"):
        followed(link)


def test_only_a_page_from_the_server_that_was_asked_makes_us_post_with_the_token() -> None:
    link = {"href": ITEMS, "method": "POST", "body": {}}
    assert PageRequest(ITEMS).followed_by(link, page_url=ITEMS).write_origin == Origin.of(ITEMS)
    redirected = PageRequest("https://evil.example/items").followed_by(link, page_url=ITEMS)
    assert redirected.write_origin is None
    elsewhere = {**link, "href": "https://api.example.org/api/v4/user/keys"}
    with pytest.raises(InvalidResponseError, match="a POST to another address"):
        PageRequest("https://evil.example/search", "POST").followed_by(elsewhere, page_url=ITEMS)


@pytest.mark.parametrize("href", ["https://me:word@api.example.org/", "https://a\\@b.example/"])
def test_a_next_link_with_user_info_or_a_backslash_is_refused(href: str) -> None:
    with pytest.raises(InvalidResponseError, match="not a URL to request") as caught:
        followed({"href": href})
    assert "word" not in str(caught.value)


def test_what_was_asked_with_post_may_lead_to_another_path_of_its_server_only() -> None:
    link = {"href": "/search/next", "method": "POST", "body": {"token": "2"}}
    assert followed(link, method="POST").href == "https://api.example.org/search/next"
    with pytest.raises(InvalidResponseError, match="a POST to another address"):
        followed({**link, "href": "https://hub.example.org/search/next"}, method="POST")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Päge": "2"},
        {"X-Page": "\u20ac"},
        {"X-Page": "\ufffd"},
        {"X-Page": "2\r\nX-Evil: 1"},
        {"X-Page\r\nX-Evil": "1"},
        {"X-Gitlab-Token ": "x"},
        {"X-Page": " 2"},
        {"X-Page": "\0"},
        {"": "2"},
        {"X:Page": "2"},
    ],
)
def test_a_header_that_cannot_be_sent_is_an_error(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidResponseError, match="a header that cannot be sent"):
        followed({"href": ITEMS, "headers": headers})


@pytest.mark.parametrize("value", ["", "2", "a, b", "caf\u00e9"])
def test_any_header_that_can_be_sent_is(value: str) -> None:
    assert followed({"href": ITEMS, "headers": {"X-Page": value}}).headers == {"X-Page": value}


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ({}, "without an href"),
        ({"href": None}, "without an href"),
        ({"href": ""}, "without an href"),
        ({"href": 5}, "without an href"),
        ({"href": "http://[bad"}, "no URL"),
        ({"href": ITEMS, "method": "DELETE"}, "'DELETE'"),
        ({"href": ITEMS, "method": ["GET"]}, "the method"),
        ({"href": ITEMS, "headers": ["a"]}, "not an object"),
        ({"href": ITEMS, "headers": {"X-\u00c4": "a"}}, "cannot be sent"),
        ({"href": ITEMS, "headers": {"X-Page": "\u2026"}}, "cannot be sent"),
        ({"href": ITEMS, "method": "POST", "body": "a=1"}, "not an object"),
    ],
)
def test_a_next_link_that_cannot_be_followed_is_an_error(link: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidResponseError, match=said) as caught:
        followed(link)
    assert ITEMS in str(caught.value)


def test_errors_show_no_secret_of_the_page_url() -> None:
    secret = f"{ITEMS}?private_token=abcdefgh"
    for broken in (
        lambda: PageRequest(secret).followed_by({}, page_url=secret),
        lambda: Page(secret, {}).features(),
        lambda: Page(secret, {"links": 5}).next_link(),
    ):
        with pytest.raises(InvalidResponseError) as caught:
            broken()
        assert "abcdefgh" not in f"{caught.value} {caught.value.url}"


@pytest.mark.parametrize(
    ("url", "limited"),
    [
        (ITEMS, f"{ITEMS}?limit=7"),
        (f"{ITEMS}?", f"{ITEMS}?limit=7"),
        (f"{ITEMS}?bbox=1,2,3,4", f"{ITEMS}?bbox=1,2,3,4&limit=7"),
        (f"{ITEMS}?limit=3", f"{ITEMS}?limit=3"),
        (f"{ITEMS}?limit=", f"{ITEMS}?limit="),
    ],
)
def test_a_limit_is_added_where_there_is_none(url: str, limited: str) -> None:
    assert with_limit(url, 7) == limited


# -- the walk -------------------------------------------------------------------------------


def test_pages_are_walked_to_the_one_without_next() -> None:
    read = Scripted(
        {
            ITEMS: page("a", "b", href="?after=b"),
            f"{ITEMS}?after=b": page("c", "d", href="?after=d"),
            f"{ITEMS}?after=d": page("e"),
        }
    )
    assert ids(Pages(read, PageRequest(ITEMS))) == ["a", "b", "c", "d", "e"]
    assert len(read.asked) == 3


def test_parameters_replace_those_of_the_same_name_and_no_others() -> None:
    url = with_parameters(f"{ITEMS}?flag=&limit=3&q=a+b", {"limit": "1", "ids": "a,b"})
    assert url == f"{ITEMS}?flag=&q=a%20b&limit=1&ids=a,b"


def test_an_empty_page_does_not_end_the_walk() -> None:
    read = Scripted(
        {
            ITEMS: page(href="?p=2"),
            f"{ITEMS}?p=2": page("a", href="?p=3"),
            f"{ITEMS}?p=3": page(href="?p=4"),
            f"{ITEMS}?p=4": page("b", href="?p=5"),
            f"{ITEMS}?p=5": page(),
        }
    )
    assert ids(Pages(read, PageRequest(ITEMS))) == ["a", "b"]


def test_a_page_without_links_is_the_last() -> None:
    for links in ({}, {"links": None}, {"links": []}, {"links": ["next"]}):
        document = {"features": [a("item", id="a")], **links}
        assert ids(Pages(Scripted({ITEMS: document}), PageRequest(ITEMS))) == ["a"]


def test_coming_back_to_a_page_is_an_error() -> None:
    read = Scripted(
        {
            ITEMS: page("a", href="?p=2"),
            f"{ITEMS}?p=2": page("b", href="?p=3"),
            f"{ITEMS}?p=3": page("c", href="?p=2"),
        }
    )
    with pytest.raises(InvalidResponseError, match="pages in circles"):
        ids(Pages(read, PageRequest(ITEMS)))
    assert len(read.asked) == 3


def test_the_same_page_under_another_name_is_an_error() -> None:
    read = Scripted(
        {ITEMS: page("a", "b", href="?p=2"), f"{ITEMS}?p=2": page("a", "b", href="?p=3")}
    )
    with pytest.raises(InvalidResponseError, match="same page as the one before"):
        ids(Pages(read, PageRequest(ITEMS)))


def test_items_of_earlier_pages_are_left_out_with_one_warning() -> None:
    read = Scripted(
        {
            ITEMS: {**page("a", "b", href="?p=2"), "numberMatched": 4},
            f"{ITEMS}?p=2": page("b", "c", href="?p=3"),
            f"{ITEMS}?p=3": page("c", "d"),
        }
    )
    with pytest.warns(IncompleteListingWarning, match="repeats 1 features") as warned:
        assert ids(Pages(read, PageRequest(ITEMS))) == ["a", "b", "c", "d"]
    assert len(warned) == 1


def test_repeats_are_found_among_the_latest_ids_in_memory_that_stays_flat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paging, "REMEMBERED_IDS", 10)
    # Each page begins with the last item of the one before.
    table = {
        f"{ITEMS}?p={n}": page(*(f"{3 * n + k}" for k in range(4)), href=f"?p={n + 1}")
        for n in range(100)
    }
    table[f"{ITEMS}?p=100"] = page("300")
    pages = Pages(Scripted(table), PageRequest(f"{ITEMS}?p=0"))
    with pytest.warns(IncompleteListingWarning, match="repeats 1"):
        assert ids(pages) == [f"{n}" for n in range(301)]
    assert len(pages._seen) <= 10
    assert len(pages._seen_before) <= 10


def test_an_id_in_two_collections_is_two_items() -> None:
    document = page()
    document["features"] = [a("item", id="a", collection=name) for name in ("one", "two", "one")]
    with pytest.warns(IncompleteListingWarning, match="repeats 1 features"):
        found = list(Pages(Scripted({ITEMS: document}), PageRequest(ITEMS)).listed(everything))
    assert [each["collection"] for each in found] == ["one", "two"]


def test_only_different_items_are_counted() -> None:
    first = {**page("a", "b", href="?p=2"), "numberMatched": 4}
    read = Scripted({ITEMS: first, f"{ITEMS}?p=2": page("b", "c")})
    with pytest.warns(IncompleteListingWarning) as warned:
        ids(Pages(read, PageRequest(ITEMS)))
    assert "after 3 features" in str(warned[-1].message)


def test_the_same_items_in_another_order_are_an_error() -> None:
    names = ["a", "b", "c"]
    read = Scripted(
        {
            f"{ITEMS}?p={n}": page(*names[n % 3 :], *names[: n % 3], href=f"?p={n + 1}")
            for n in range(9)
        }
    )
    listed = Pages(read, PageRequest(f"{ITEMS}?p=0")).listed(everything)
    assert [next(listed)["id"] for _ in names] == names
    with (
        pytest.warns(IncompleteListingWarning, match="repeats 3"),
        pytest.raises(InvalidResponseError, match="nothing new"),
    ):
        next(listed)
    assert len(read.asked) == 3


def test_a_server_that_counts_nothing_says_zero() -> None:
    assert paging.number_matched({"numberMatched": 0, "context": {"matched": 5}}) == 0


def test_empty_pages_without_end_are_an_error() -> None:
    def read(request: PageRequest) -> Page:
        count = int(request.href.rpartition("=")[2])
        return Page(request.href, page(href=f"?p={count + 1}"))

    with pytest.raises(InvalidResponseError, match=r"5 empty pages.*Limits\(empty_pages=\)"):
        ids(Pages(read, PageRequest(f"{ITEMS}?p=1"), limits=Limits(empty_pages=5)))


def test_only_empty_pages_in_a_row_count() -> None:
    names = ["", "", "a", "", "", "b", "", ""]
    table = {
        f"{ITEMS}?p={n}": page(*filter(None, [name]), href=f"?p={n + 1}")
        for n, name in enumerate(names)
    }
    table[f"{ITEMS}?p={len(names)}"] = page("c")
    read = Scripted(table)
    assert ids(Pages(read, PageRequest(f"{ITEMS}?p=0"), limits=Limits(empty_pages=2))) == [*"abc"]
    with pytest.raises(InvalidResponseError, match="more than 1 empty pages"):
        ids(Pages(read, PageRequest(f"{ITEMS}?p=0"), limits=Limits(empty_pages=1)))


@pytest.mark.parametrize("listed", [..., None, {}, "x"])
def test_a_page_that_lists_nothing_is_an_error(listed: Any) -> None:
    document = {} if listed is ... else {"features": listed}
    with pytest.raises(InvalidResponseError, match="without a list of features"):
        ids(Pages(Scripted({ITEMS: document}), PageRequest(ITEMS)))


def test_posts_to_one_url_are_told_apart_by_their_bodies() -> None:
    bodies: list[Any] = []

    def read(request: PageRequest) -> Page:
        bodies.append(request.body)
        number = len(bodies)
        more = {"href": ITEMS, "method": "POST", "body": {"token": number}} if number < 3 else {}
        return Page(ITEMS, page(f"item {number}", **more))

    assert ids(Pages(read, PageRequest(ITEMS, "POST", body={"limit": 1}))) == [
        "item 1",
        "item 2",
        "item 3",
    ]
    assert bodies == [{"limit": 1}, {"token": 1}, {"token": 2}]


def test_fewer_things_than_were_counted_are_a_warning() -> None:
    pages = {ITEMS: {**page("a", "b"), "numberMatched": 3}}
    with pytest.warns(IncompleteListingWarning, match="after 2 features.*3 match"):
        assert ids(Pages(Scripted(pages), PageRequest(ITEMS))) == ["a", "b"]


def test_a_count_that_stays_wrong_is_a_warning_once() -> None:
    pages = {ITEMS: {**page("a", "b"), "numberMatched": 3}}
    gaps: set[int] = set()
    with pytest.warns(IncompleteListingWarning, match="3 match"):
        assert ids(Pages(Scripted(pages), PageRequest(ITEMS), known_gaps=gaps)) == ["a", "b"]
    # Warnings are errors.
    assert ids(Pages(Scripted(pages), PageRequest(ITEMS), known_gaps=gaps)) == ["a", "b"]
    fewer = {ITEMS: {**page("a"), "numberMatched": 3}}
    with pytest.warns(IncompleteListingWarning, match="after 1 features"):
        assert ids(Pages(Scripted(fewer), PageRequest(ITEMS), known_gaps=gaps)) == ["a"]


def test_the_first_count_is_the_one_that_counts() -> None:
    first = {**page("a", href="?p=2"), "context": {"matched": 2}}
    second = {**page("b"), "numberMatched": 99}
    pages = Pages(Scripted({ITEMS: first, f"{ITEMS}?p=2": second}), PageRequest(ITEMS))
    assert ids(pages) == ["a", "b"]


@pytest.mark.parametrize("count", [None, 1, 2, -5, "many", True, {"matched": 5}])
def test_a_count_that_says_nothing_is_no_warning(count: Any) -> None:
    pages = {ITEMS: {**page("a", "b"), "numberMatched": count, "context": count}}
    expected = isinstance(count, dict)
    with pytest.warns(IncompleteListingWarning) if expected else contextlib.nullcontext():
        assert ids(Pages(Scripted(pages), PageRequest(ITEMS))) == ["a", "b"]


@pytest.mark.parametrize("listed", ["a", "ab", "abc"])
@pytest.mark.parametrize("size", [None, 2])
def test_a_full_page_without_next_and_count_is_a_warning_once(
    listed: str, size: int | None
) -> None:
    gaps: set[int] = set()

    def all_listed(document: dict[str, Any]) -> list[str]:
        script = Scripted({ITEMS: document})
        pages = Pages(script, PageRequest(ITEMS), known_gaps=gaps, page_size=size)
        return [each["id"] for each in pages.listed(lambda *_: True)]

    # Warnings are errors.
    assert all_listed({**page(*listed), "numberMatched": len(listed)}) == list(listed)
    expected = size == len(listed)
    hint = pytest.warns(IncompleteListingWarning, match="There may be more")
    with hint if expected else contextlib.nullcontext():
        assert all_listed(page(*listed)) == list(listed)
    assert all_listed(page(*listed)) == list(listed)


def test_a_full_last_page_after_another_is_no_warning() -> None:
    script = Scripted({ITEMS: page("a", "b", href="?p=2"), f"{ITEMS}?p=2": page("c", "d")})
    pages = Pages(script, PageRequest(ITEMS), page_size=2)
    assert len(list(pages.listed(lambda *_: True))) == 4


def test_who_stops_before_the_end_is_told_nothing_about_it() -> None:
    pages = {ITEMS: {**page("a", "b"), "numberMatched": 3}}
    listed = Pages(Scripted({ITEMS: {**pages[ITEMS]}}), PageRequest(ITEMS), field_name="features")
    listed.close()
    assert list(listed) == []


# -- reading ahead --------------------------------------------------------------------------


class Gated:
    """Pages of two; every page but the first waits until it is let through."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked = threading.Semaphore(0)
        self.count = 0

    def __call__(self, request: PageRequest) -> Page:
        self.count += 1
        number = self.count
        self.asked.release()
        if number > 1:
            assert self.gate.wait(10)
        return Page(request.href, page(f"{number}a", f"{number}b", href=f"?p={number + 1}"))


@pytest.mark.usefixtures("always_ahead")
def test_the_next_page_is_fetched_while_the_caller_works_on_this_one() -> None:
    read = Gated()
    listed = Pages(read, PageRequest(ITEMS)).listed(everything)
    next(listed)
    assert read.count == 1, "the first item costs one page"
    next(listed)
    assert read.asked.acquire(timeout=10)
    assert read.asked.acquire(timeout=10)
    assert read.count == 2
    read.gate.set()
    next(listed)
    assert read.count == 2, "one page ahead, not more"
    listed.close()


@pytest.mark.usefixtures("always_ahead")
def test_a_page_that_will_not_be_reached_is_not_read_ahead() -> None:
    read = Gated()
    read.gate.set()
    listed = Pages(read, PageRequest(ITEMS)).listed(everything, limit=2)
    assert [next(listed)["id"] for _ in range(2)] == ["1a", "1b"]
    assert read.count == 1
    assert next(listed)["id"] == "2a", "it is read when it is asked for after all"
    listed.close()


def test_pages_that_come_at_once_are_not_read_ahead_and_those_that_are_waited_for_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, waited, computed, asked = 100.0, 0.0, 0.0, 0
    busy = 7.0
    came = threading.Semaphore(0)
    clock = SimpleNamespace(perf_counter=lambda: now, thread_time=lambda: busy)
    monkeypatch.setattr(paging, "time", clock)

    def read(request: PageRequest) -> Page:
        nonlocal asked, busy, now
        asked += 1
        now += waited + computed
        busy += computed
        came.release()
        return Page(request.href, page(f"{asked}a", f"{asked}b", href=f"?p={asked + 1}"))

    listed = Pages(read, PageRequest(ITEMS)).listed(everything)
    for count in (1, 1, 2, 2, 3, 3):
        next(listed)
        assert asked == count
    # While this process computes, another page would not come any sooner.
    computed = 5.0
    for count in (4, 4, 5):
        next(listed)
        assert asked == count
    waited = 0.02
    assert [next(listed)["id"] for _ in range(3)] == ["5b", "6a", "6b"]
    for _ in range(7):
        assert came.acquire(timeout=10)
    assert asked == 7
    listed.close()


def page_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "stac-gitlab-page"]


@pytest.mark.usefixtures("always_ahead")
def test_an_error_of_the_page_read_ahead_comes_when_it_is_its_turn() -> None:
    def read(request: PageRequest) -> Page:
        if "p=2" in request.href:
            raise InvalidResponseError("the second page is broken")
        return Page(request.href, page("a", "b", "c", href="?p=2"))

    listed = Pages(read, PageRequest(ITEMS)).listed(everything)
    assert [next(listed)["id"] for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(InvalidResponseError, match="second page"):
        next(listed)


# -- through a reader -----------------------------------------------------------------------

Route = Callable[[RecordedRequest], Any]


@pytest.fixture
def stac_io() -> Iterator[GitLabStacIO]:
    with GitLabStacIO("glpat-reader-0001", retry=RetryPolicy(max_attempts=1)) as reader:
        yield reader


def test_a_next_link_does_not_set_the_header_of_a_secret(server: LoopbackServer) -> None:
    headers = {"X-Hub": "theirs", "x_own": "theirs", "X-Position": "2"}
    server.route("/items", page("a", href="items2", headers=headers))
    server.route("/items2", page("b"))
    options = {"header": "X-Hub", "headers": {"X-Own": "ours"}, "base_url": server.url}
    with GitLabStacIO("glpat-reader-0001", **options) as stac_io:
        list(list_items(stac_io, f"{server.url}/items"))
    sent = server.requests[-1].headers
    assert sent["X-Hub"] == "glpat-reader-0001"
    assert (sent["X-Own"], sent.get("x_own"), sent["X-Position"]) == ("ours", None, "2")


def test_the_token_goes_along_with_every_page_but_not_to_another_server(
    server: LoopbackServer, other_server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    server.route("/items", page("a", href="items2"))
    server.route("/items2", page("b", href=f"{other_server.url}/items3"))
    other_server.route("/items3", page("c"))
    stac_io.credentials.bind(server.url)
    assert [each["id"] for each in list_items(stac_io, f"{server.url}/items")] == ["a", "b", "c"]
    assert [r.headers["X-Gitlab-Token"] for r in server.requests] == ["glpat-reader-0001"] * 2
    assert "X-Gitlab-Token" not in other_server.requests[0].headers


def test_a_post_next_sends_json(server: LoopbackServer, stac_io: GitLabStacIO) -> None:
    more = {"href": f"{server.url}/items", "method": "post", "body": {"token": "2"}}

    def items(request: RecordedRequest) -> Any:
        return page("b") if request.method == "POST" else page("a", **more)

    server.route("/items", items)
    assert [each["id"] for each in list_items(stac_io, f"{server.url}/items")] == ["a", "b"]
    assert server.requests[1].json() == {"token": "2"}
    assert server.requests[1].headers["Content-Type"] == "application/json"


def test_page_size_is_the_limit_that_is_asked_for(server: LoopbackServer) -> None:
    server.route("/items", page("a"))
    with GitLabStacIO(page_size=7) as reader:
        list(list_items(reader, f"{server.url}/items"))
    assert server.requests[0].query_string == "limit=7"


def test_pages_after_a_redirect_are_relative_to_where_it_led(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    server.route("/items", Answer(302, (("location", "/api/items"),)))
    server.route("/api/items", page("a", href="items2"))
    server.route("/api/items2", page("b"))
    assert [each["id"] for each in list_items(stac_io, f"{server.url}/items")] == ["a", "b"]


def test_a_page_is_let_go_before_the_next_one_comes(
    stac_io: GitLabStacIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[weakref.ref[Page]] = []

    def read_page(request: PageRequest) -> Page:
        assert [each() for each in read] == [None] * len(read)
        more = {"href": f"?p={len(read)}"} if len(read) < 2 else {}
        answer = Page(request.href, page(f"{len(read)}a", f"{len(read)}b", **more))
        read.append(weakref.ref(answer))
        return answer

    # A page that is read ahead comes while the one before is still at work.
    monkeypatch.setattr(paging, "LONG_WAIT", math.inf)
    monkeypatch.setattr(stac_io, "read_page", read_page)
    assert sum(1 for _ in list_items(stac_io, ITEMS)) == 6


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", "a list where an object"),
        (b"{", "cut short"),
        ({"detail": "hello"}, "without a list of features"),
        ("<!DOCTYPE html><html><p>Hello", "an HTML page"),
    ],
)
def test_a_broken_second_page_is_an_error_after_the_first_one(
    server: LoopbackServer, stac_io: GitLabStacIO, body: Any, said: str
) -> None:
    server.route("/items", page("a", "b", href="items2"))
    server.route("/items2", body)
    listed = list_items(stac_io, f"{server.url}/items")
    assert [next(listed)["id"], next(listed)["id"]] == ["a", "b"]
    with pytest.raises(InvalidResponseError, match=said):
        next(listed)


@pytest.mark.parametrize("bad", [None, 5, "x", [], {}, {"type": "Catalog", "id": "c"}])
def test_what_is_no_item_is_left_out_with_a_warning(
    server: LoopbackServer, stac_io: GitLabStacIO, bad: Any
) -> None:
    listed = page("a", "b")
    listed["features"].insert(1, bad)
    server.route("/items", listed)
    with pytest.warns(UnreadableItemWarning, match="Left out") as caught:
        found = [each["id"] for each in list_items(stac_io, f"{server.url}/items")]
    assert found == ["a", "b"]
    assert len(caught) == 1


def test_on_bad_item_raise_makes_it_an_error(server: LoopbackServer) -> None:
    listed = page("a", "b")
    del listed["features"][1]["properties"]
    server.route("/items", listed)
    with GitLabStacIO(on_bad_item="raise") as reader:
        items = list_items(reader, f"{server.url}/items")
        assert next(items)["id"] == "a"
        with pytest.raises(InvalidResponseError, match=r"id 'b'.*properties is missing"):
            next(items)


@pytest.mark.usefixtures("always_ahead")
def test_no_thread_is_left_when_the_caller_stops(
    server: LoopbackServer, stac_io: GitLabStacIO
) -> None:
    server.route("/items", page("a", "b", href="items2"))
    server.route("/items2", page("c"))
    server.inject(Fault(path="items2", delay=60))
    listed = list_items(stac_io, f"{server.url}/items")
    next(listed)
    next(listed)
    (thread,) = page_threads()
    listed.close()  # type: ignore[attr-defined]  # a generator
    thread.join(5)
    assert not thread.is_alive()


def test_three_thousand_items_take_thirty_requests() -> None:
    hub = SharingHubServer(generated_projects(3000))
    with hub, GitLabStacIO(hub.token, base_url=hub.url) as reader:
        url = f"{hub.stac_url}/collections/dataset/items"
        assert len({each["id"] for each in list_items(reader, url)}) == 3000
        assert len(hub.requests) == 30
