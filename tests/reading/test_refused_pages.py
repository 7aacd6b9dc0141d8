"""A page that SharingHub refuses for good because of one project is read around that project."""

from __future__ import annotations

import contextlib
import gzip
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import pystac
import pytest
from stand_in import RecordedHub
from stand_in.hub import RecordedProject

from stac_gitlab import (
    STACAPI,
    AuthenticationError,
    GitLabStacIO,
    HTTPStatusError,
    PartialItemWarning,
    RateLimitError,
    RetryPolicy,
    ServerError,
    UnreadableItemWarning,
)
from stac_gitlab.reading.listing import list_items
from stac_gitlab.search import open_client
from stac_gitlab.testing import (
    Answer,
    Fault,
    LoopbackServer,
    RecordedRequest,
    SharingHubServer,
)

Start = Callable[..., SharingHubServer]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a hub over projects, some of which break each full page, others previews as well."""
    with contextlib.ExitStack() as stack:

        def start(
            broken: set[int],
            count: int = 7,
            *,
            worse: set[int] = frozenset(),  # type: ignore[assignment]
        ) -> SharingHubServer:
            projects = [
                RecordedProject(
                    f"group/p{n}",
                    {"f": b"x"},
                    broken=n in broken | worse,
                    broken_preview=n in worse,
                    bbox=(n, 0, n + 0.5, 1),
                )
                for n in range(count)
            ]
            return stack.enter_context(RecordedHub(projects))

        yield start


def reader_of(hub: SharingHubServer, clock: Any, **options: Any) -> GitLabStacIO:
    retry = RetryPolicy(clock=clock.time, sleep=clock.sleep)
    return GitLabStacIO(
        hub.token, **{"base_url": hub.url, "page_size": 3, "retry": retry} | options
    )


def items_of(hub: SharingHubServer) -> str:
    return f"{hub.stac_url}/collections/dataset/items"


def listed(reader: GitLabStacIO, hub: SharingHubServer) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the items, and the beginnings of the warnings about them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(list_items(reader, items_of(hub)))
    return found, [str(each.message).split(":")[0] for each in caught]


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return [int(each["id"].removeprefix("group/p")) for each in found]


def partial(found: list[dict[str, Any]]) -> list[int]:
    return numbers([each for each in found if each["properties"].get("stac_gitlab:partial")])


# -- one bad project -----------------------------------------------------------------------------


def test_a_project_that_breaks_full_pages_comes_in_its_short_form(start: Start, clock: Any) -> None:
    hub = start({1, 3})
    with reader_of(hub, clock) as reader:
        found, warned = listed(reader, hub)
        whole = reader.read_json(hub.item_url("group/p0"))
    assert numbers(found) == [*range(7)]
    assert partial(found) == [1, 3]
    assert warned == ["Partial item 'group/p1'", "Partial item 'group/p3'"]
    assert found[0] == whole
    assert found[1]["assets"] == {}


def test_a_project_that_breaks_previews_too_is_left_out(start: Start, clock: Any) -> None:
    hub = start(set(), worse={1, 3})
    with reader_of(hub, clock) as reader:
        found, warned = listed(reader, hub)
    assert numbers(found) == [0, 2, 4, 5, 6]
    assert partial(found) == []
    assert warned == ["Left out item 'group/p1'", "Left out item 'group/p3'"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_every_place_on_every_page_is_found(
    start: Start, clock: Any, size: int, count: int
) -> None:
    for bad in range(count):
        hub = start({bad}, count)
        with reader_of(hub, clock, page_size=size) as reader:
            found, _ = listed(reader, hub)
        assert (numbers(found), partial(found)) == ([*range(count)], [bad])


def test_any_mixture_is_sorted_out(start: Start, clock: Any) -> None:
    broken, worse = {0, 1, 5, 6, 11, 12, 14, 15, 16, 17, 28, 29}, {7, 8, 9, 13, 20}
    hub = start(broken, 30, worse=worse)
    with reader_of(hub, clock, page_size=8) as reader:
        found, warned = listed(reader, hub)
    assert numbers(found) == [n for n in range(30) if n not in worse]
    assert set(partial(found)) >= broken
    assert len(warned) == len(partial(found)) + len(worse)


@pytest.mark.parametrize("worse", [False, True])
def test_one_broken_project_of_268_costs_at_most_ten_more_requests(
    start: Start, clock: Any, worse: bool
) -> None:
    # In the middle of a page: the place that takes the most requests.
    hub = start(set(), 268, worse={149}) if worse else start({149}, 268)
    with reader_of(hub, clock, page_size=100) as reader:
        found, warned = listed(reader, hub)
        assert len(found) == 267 + (not worse)
        assert len(warned) == 1
        assert len(hub.requests) <= 3 + 10
        assert clock.slept == []


def test_at_most_half_a_page_is_requested_in_vain_besides_the_page(
    start: Start, clock: Any
) -> None:
    # At the beginning of a page, where each request fails until the project is alone.
    hub = start({0}, 101)
    with reader_of(hub, clock, page_size=100) as reader:
        listed(reader, hub)
    queries = [dict(parse_qsl(each.query_string)) for each in hub.requests]
    found = next(n for n, query in enumerate(queries) if "mode" in query)
    assert sum(int(query["limit"]) for query in queries[1:found]) <= 50


def test_the_second_listing_asks_around_what_is_known_to_be_bad(start: Start, clock: Any) -> None:
    hub = start({149}, 268)
    with reader_of(hub, clock, page_size=100) as reader:
        first = listed(reader, hub)
        hub.clear_requests()
        assert listed(reader, hub) == first
        # Three pages, one of which is in two parts, and the short form.
        assert len(hub.requests) == 5
        assert "500" not in str(list(reader.refusals))


def test_each_reader_has_a_memory_of_its_own(start: Start, clock: Any) -> None:
    hub = start({1})
    with reader_of(hub, clock) as reader, reader_of(hub, clock) as other:
        listed(reader, hub)
        assert reader.refusals
        assert not other.refusals


def change(hub: SharingHubServer, number: int, **values: Any) -> None:
    found = hub.catalogue.find(f"group/p{number}")
    assert found is not None
    for name, value in values.items():
        object.__setattr__(found.project, name, value)


def test_a_project_that_was_mended_is_whole_in_the_next_listing(start: Start, clock: Any) -> None:
    hub = start({1})
    with reader_of(hub, clock) as reader:
        assert partial(listed(reader, hub)[0]) == [1]
        change(hub, 1, broken=False, updated="2025-01-01T00:00:00Z")
        found, warned = listed(reader, hub)
    assert (numbers(found), partial(found), warned) == ([*range(7)], [], [])


def test_what_is_remembered_is_given_up_where_the_hub_has_changed(start: Start, clock: Any) -> None:
    hub = start({1})
    with reader_of(hub, clock) as reader:
        listed(reader, hub)
        change(hub, 1, broken=False, updated="2025-01-01T00:00:00Z")
        change(hub, 2, broken=True)
        assert partial(listed(reader, hub)[0]) == [2]
        change(hub, 0, broken=True)
        found, _ = listed(reader, hub)
    assert (numbers(found), partial(found)) == ([*range(7)], [0, 2])


def test_a_bad_project_raises_where_the_caller_wants_that(start: Start, clock: Any) -> None:
    for hub in (start({1}), start(set(), worse={1})):
        with reader_of(hub, clock, on_bad_item="raise") as reader:
            items = list_items(reader, items_of(hub))
            assert next(items)["id"] == "group/p0"
            with pytest.raises(ServerError, match="group/p1"):
                next(items)


def test_pystac_walks_a_hub_with_a_bad_project(start: Start, clock: Any) -> None:
    hub = start({1})
    with reader_of(hub, clock) as reader:
        collection = pystac.Catalog.from_file(f"{hub.stac_url}/collections/dataset", stac_io=reader)
        with pytest.warns(PartialItemWarning, match=r"group/p1.*fails on it.*short form"):
            items = list(collection.get_items())
    assert [item.properties.get("stac_gitlab:partial") for item in items[:3]] == [None, True, None]
    assert items[1].get_collection() is collection


def test_a_bad_project_does_not_end_a_search(start: Start, clock: Any) -> None:
    hub = start({1})
    with reader_of(hub, clock) as reader:
        found = STACAPI(hub.stac_url, stac_io=reader).items("dataset", q="p", sortby="+title")
        with pytest.warns(PartialItemWarning, match="group/p1"):
            assert len({item.id for item in found}) == 7


def test_a_filter_stays_a_filter(start: Start, clock: Any) -> None:
    hub = start({2})
    with reader_of(hub, clock) as reader:
        found = STACAPI(hub.stac_url, stac_io=reader).items("dataset", bbox=(0.9, 0, 4.1, 1))
        with pytest.warns(PartialItemWarning, match="group/p2"):
            assert [item.id for item in found] == [f"group/p{n}" for n in (1, 2, 3, 4)]
    # References ignore the filter, and would list what was not asked for.
    hub = start(set(), worse={2})
    with reader_of(hub, clock) as reader:
        found = STACAPI(hub.stac_url, stac_io=reader).items("dataset", bbox=(0.9, 0, 4.1, 1))
        with pytest.raises(ServerError, match="List without bbox to leave"):
            list(found)


@pytest.mark.parametrize("bad", range(5))
def test_a_bad_project_does_not_end_a_search_by_ids(start: Start, clock: Any, bad: int) -> None:
    # The server has no pages there, and ignores the limit.
    ids = [f"group/p{n}" for n in (3, 1, 0, 2, 4)] + ["group/nowhere"]
    for hub, error in (
        (start({bad}), PartialItemWarning),
        (start(set(), worse={bad}), UnreadableItemWarning),
    ):
        with reader_of(hub, clock) as reader:
            client = open_client(hub.stac_url, stac_io=reader)
            for _ in range(2):
                with pytest.warns(error, match=f"group/p{bad}"):
                    found = client.search(collections=["dataset"], ids=ids).item_collection()
                wanted = [
                    each for each in ids[:-1] if error is PartialItemWarning or each[-1] != str(bad)
                ]
                assert [item.id for item in found] == wanted


def test_a_bad_project_does_not_end_a_list_of_ids(start: Start, clock: Any) -> None:
    hub = start({0, 2})
    ids = [f"group/p{n}" for n in range(4)]
    with reader_of(hub, clock) as reader:
        found = STACAPI(hub.stac_url, stac_io=reader).items("dataset", ids=ids)
        collection = pystac.Catalog.from_file(f"{hub.stac_url}/collections/dataset", stac_io=reader)
        for items in (found, collection.get_items(*ids)):
            with pytest.warns(UnreadableItemWarning) as caught:
                assert [item.id for item in items] == ["group/p1", "group/p3"]
            assert [str(each.message)[:24] for each in caught] == [
                "Left out item 'group/p0'",
                "Left out item 'group/p2'",
            ]
        with pytest.raises(ServerError, match="group/p0"):
            next(collection.get_items("group/p0"))
        hub.upstream(500, path="/items/", times=None)
        hub.clear_requests()
        with pytest.raises(ServerError):
            list(found)
        assert len({each.path for each in hub.requests if "/items/" in each.path}) == 3
    with reader_of(hub, clock, on_bad_item="raise") as reader:
        found = STACAPI(hub.stac_url, stac_io=reader).items("dataset", ids=ids)
        with pytest.raises(ServerError, match="500"):
            list(found)


# -- all of them bad -----------------------------------------------------------------------------


def test_a_dead_model_registry_costs_few_requests_and_no_project(start: Start, clock: Any) -> None:
    hub = start(set(range(122)), 122)
    with reader_of(hub, clock, page_size=100) as reader:
        found, warned = listed(reader, hub)
        assert numbers(found) == partial(found) == [*range(122)]
        assert len(warned) == 122
        assert len(hub.requests) <= 30
        hub.clear_requests()
        assert listed(reader, hub)[0] == found
        assert len(hub.requests) == 2


def test_projects_without_any_short_form_are_each_named(start: Start, clock: Any) -> None:
    hub = start(set(), 5, worse=set(range(5)))
    with reader_of(hub, clock) as reader:
        found, warned = listed(reader, hub)
    assert found == []
    assert warned == [f"Left out item 'group/p{n}'" for n in range(5)]


# -- a server that is down for a moment ----------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_a_server_that_fails_for_a_moment_costs_no_item(
    start: Start, clock: Any, times: int
) -> None:
    for after in range(4):
        hub = start(set())
        with reader_of(hub, clock) as reader:
            hub.upstream(path="/items", times=times, after=after)
            found, warned = listed(reader, hub)
        assert (numbers(found), partial(found), warned) == ([*range(7)], [], [])


def test_a_server_that_fails_altogether_is_an_error_of_the_page(start: Start, clock: Any) -> None:
    hub = start(set())
    with reader_of(hub, clock) as reader:
        hub.upstream(500, path="/items", times=None)
        with pytest.raises(ServerError) as caught:
            list(list_items(reader, items_of(hub)))
    assert caught.value.status_code == 500
    assert "mode=" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_server_without_short_forms_fails_with_the_first_error(
    start: Start, clock: Any, status: int
) -> None:
    hub = start({1})
    with reader_of(hub, clock) as reader:
        hub.inject(Fault(query="mode=", status=status, times=None))
        with pytest.raises(ServerError) as caught:
            list(list_items(reader, items_of(hub)))
    assert caught.value.status_code == 500
    assert "mode=" not in str(caught.value)


@pytest.mark.parametrize(("status", "error"), [(401, AuthenticationError), (429, RateLimitError)])
@pytest.mark.parametrize("mode", ["preview", "reference"])
def test_a_refused_short_form_is_raised_as_what_it_is(
    start: Start, clock: Any, status: int, error: type[HTTPStatusError], mode: str
) -> None:
    hub = start(set(), worse={1})
    with reader_of(hub, clock) as reader:
        hub.inject(Fault(query=f"mode={mode}", status=status, times=None))
        with pytest.raises(error):
            list(list_items(reader, items_of(hub)))


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_busy_server_gets_all_attempts_of_the_policy(
    start: Start, clock: Any, status: int
) -> None:
    hub = start(set())
    with reader_of(hub, clock) as reader:
        hub.upstream(status, path="/items", times=4)
        assert len(list(list_items(reader, items_of(hub)))) == 7
        hub.upstream(status, path="/items", times=None)
        hub.clear_requests()
        with pytest.raises(HTTPStatusError) as caught:
            list(list_items(reader, items_of(hub)))
        assert caught.value.status_code == status
        assert len(hub.requests) == 5


def test_a_lost_connection_gets_all_attempts_of_the_policy(start: Start, clock: Any) -> None:
    hub = start(set())
    with reader_of(hub, clock) as reader:
        hub.inject(Fault(path="/items", drop=True, times=4))
        assert len(list(list_items(reader, items_of(hub)))) == 7


@pytest.mark.parametrize(
    ("status", "error"), [(401, AuthenticationError), (429, RateLimitError), (502, ServerError)]
)
@pytest.mark.parametrize("where", ["/items$", "/items/group/p5"])
def test_other_failures_in_the_middle_are_raised_and_not_swallowed(
    start: Start, status: int, error: type[HTTPStatusError], where: str
) -> None:
    # No status is worth a second attempt here, but a connection that the server left is.
    policy = RetryPolicy(statuses=frozenset(), backoff_base=0.01)
    hub = start({5})
    with GitLabStacIO(hub.token, base_url=hub.url, page_size=3, retry=policy) as reader:
        hub.upstream(status, path=where, times=None, after=1 if where == "/items$" else 0)
        listed = list_items(reader, items_of(hub))
        assert [next(listed)["id"] for _ in range(3)] == ["group/p0", "group/p1", "group/p2"]
        with pytest.raises(error) as caught:
            list(listed)
    assert caught.value.status_code == status


def test_a_project_that_vanishes_meanwhile_is_named(start: Start, clock: Any) -> None:
    hub = start({2})
    with reader_of(hub, clock) as reader:
        hub.inject(Fault(path="/items/group/p2", status=404, times=None))
        found, warned = listed(reader, hub)
    assert numbers(found) == [0, 1, 3, 4, 5, 6]
    assert warned == ["Left out item 'group/p2'"]


def test_the_item_of_a_short_form_is_read_from_the_server_that_was_asked(
    start: Start, clock: Any, other_server: LoopbackServer
) -> None:
    hub = start({2}, 3)

    def elsewhere(request: RecordedRequest) -> Answer:
        answer = hub.answer(request)
        body = answer.body
        assert isinstance(body, bytes)
        if answer.header("content-encoding") == "gzip":
            body = gzip.decompress(body)
        body = body.replace(hub.url.encode(), other_server.url.encode())
        return Answer(200, (("content-type", "application/json"),), body)

    with reader_of(hub, clock) as reader:
        hub.inject(Fault(query="mode=preview", answer=elsewhere, times=None))
        found, _ = listed(reader, hub)
    assert partial(found) == [2]
    assert other_server.requests == []
