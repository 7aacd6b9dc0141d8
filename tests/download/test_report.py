"""Reports: counting, printing, notebooks and pickles."""

from __future__ import annotations

import pickle
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stac_gitlab.download.report import (
    AssetResult,
    BatchReport,
    DownloadReport,
    download_error,
    human_size,
)
from stac_gitlab.errors import DownloadError, UnsafePathError

HOSTILE = "<script>alert('1')</script>&\x1b[2J\u202e"

RESULTS = {
    "new": AssetResult("new", "https://h/new", Path("out/new"), 1500, "1220ab", verified=True),
    "again": AssetResult("again", "https://h/again", Path("out/again"), 10, status="resumed"),
    "old": AssetResult("old", "https://h/old", Path("out/old"), 7, status="skipped"),
    "plan": AssetResult("plan", "https://h/plan", Path("out/plan"), status="planned"),
    HOSTILE: AssetResult(
        HOSTILE, "https://h/x", status="failed", error=UnsafePathError("no <b>name</b>")
    ),
}
REPORT = DownloadReport(RESULTS, Path("out/item.json"))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def test_assets_are_listed_by_their_status() -> None:
    assert dict(REPORT) == RESULTS
    assert [result.key for result in REPORT.downloaded] == ["new", "again"]
    assert [result.key for result in REPORT.skipped] == ["old"]
    assert [result.key for result in REPORT.planned] == ["plan"]
    assert [result.key for result in REPORT.failed] == [HOSTILE]
    assert REPORT.paths == {k: Path("out", k) for k in ("new", "again", "old")}
    assert REPORT.bytes == 1510
    assert not REPORT.ok
    assert DownloadReport().ok


def test_a_report_prints_a_line_for_each_asset_and_a_total() -> None:
    lines = str(REPORT).splitlines()
    assert lines[0].split() == ["downloaded", "1.5", "kB", "new"]
    assert lines[-1] == REPORT.summary()
    assert "no <b>name</b>" in lines[4]
    assert str(DownloadReport()) == "empty"


def test_the_summary_has_the_bytes_of_each_status() -> None:
    assert REPORT.summary() == (
        "2 downloaded (1.5 kB), 1 planned (size unknown), 1 skipped, 1 failed"
    )
    known = DownloadReport({"a": AssetResult("a", "", size=5, status="planned")})
    assert known.summary() == "1 planned (5 B)"
    both = DownloadReport({**known.results, "plan": RESULTS["plan"]})
    assert both.summary() == "2 planned (5 B and more)"


@pytest.mark.parametrize("report", [REPORT, BatchReport({HOSTILE: REPORT, "lakes": REPORT})])
def test_no_markup_or_control_character_gets_into_a_notebook_or_a_terminal(
    report: DownloadReport | BatchReport,
) -> None:
    html = report._repr_html_()
    page = Tags()
    page.feed(html)
    assert page.tags <= {"table", "tr", "th", "td", "caption", "a"}
    assert html.isprintable()
    assert "script" in page.text
    assert str(report).replace("\n", "").isprintable()


def failed(key: str, text: str) -> AssetResult:
    return AssetResult(key, "", status="failed", error=DownloadError(text))


def test_failures_that_differ_in_names_and_numbers_only_share_a_line() -> None:
    keys = [f"{n}.csv" for n in range(5)]
    same = {k: failed(k, f"'{k}': https://h/{k}: no, {len(k)}") for k in keys}
    other = {"x": failed("x", "'x': no such file")}
    lines = str(DownloadReport({**same, **other, "new": RESULTS["new"]})).splitlines()
    assert lines == [
        "downloaded    1.5 kB  new",
        "failed             -  5 assets ('0.csv', '1.csv', '2.csv', …): https://h/0.csv: no, 5",
        "failed             -  'x': no such file",
        "1 downloaded (1.5 kB), 6 failed",
    ]


def test_failures_of_a_server_share_a_line_whatever_it_says_about_each() -> None:
    said = ["ada", "berta", "carla", "dora", "emil", "fritz", "gustav", "hans", "ida", "julius"]
    failures = {
        f"{n}.csv": failed(f"{n}.csv", f"GET /{n}: 500 (the server says: no {a}, {b}). Try later.")
        for n, (a, b) in enumerate((a, b) for a in said for b in said)
    }
    failures |= {f"{n}.tif": failed(f"{n}.tif", "GET /x: no connection.") for n in range(5)}
    header, *lines = str(download_error(DownloadReport(failures))).splitlines()
    assert header == "105 of 105 assets failed:"
    assert [line.partition(" (")[0] for line in lines] == ["  100 assets", "  5 assets"]
    assert "(the server says: no ada, ada)" in lines[0]


def test_a_few_failures_have_a_line_each() -> None:
    report = DownloadReport({k: failed(k, f"'{k}': refused") for k in ("a", "b", "c")})
    error = download_error(report)
    assert str(error) == "3 of 3 assets failed:\n  'a': refused\n  'b': refused\n  'c': refused"
    assert list(error.errors) == ["a", "b", "c"]


def test_reports_pickle() -> None:
    copy = pickle.loads(pickle.dumps(REPORT))
    assert {key: copy[key] for key in RESULTS if key != HOSTILE} == {
        key: RESULTS[key] for key in RESULTS if key != HOSTILE
    }
    assert str(copy) == str(REPORT)
    assert copy.item_path == REPORT.item_path
    batch = BatchReport({"lakes": REPORT})
    assert str(pickle.loads(pickle.dumps(batch))) == str(batch)


def test_a_batch_report_sums_up_its_items() -> None:
    batch = BatchReport({"one": REPORT, "two": DownloadReport({"new": RESULTS["new"]})})
    assert list(batch) == ["one", "two"]
    assert batch["two"].ok
    assert len(batch) == 2
    assert batch.bytes == 3010
    assert not batch.ok
    assert batch.failed == {f"one: {HOSTILE}": RESULTS[HOSTILE]}
    lines = str(batch).splitlines()
    assert lines[1] == "two: 1 downloaded (1.5 kB)"
    assert "no <b>name</b>" in lines[2]
    assert lines[-1] == batch.summary()
    assert batch.summary() == (
        "2 items: 3 downloaded (3.0 kB), 1 planned (size unknown), 1 skipped, 1 failed"
    )
    assert repr(batch) == f"<BatchReport of {batch.summary()}>"
    assert str(BatchReport()) == "empty"


def test_a_report_of_many_items_is_small_in_a_notebook() -> None:
    one = AssetResult("data/a.csv", "https://h/a", Path("out/a.csv"), 10, verified=True)
    no = failed("data/b.csv", "GET https://h/b: 404 Not Found. " + "It is not there. " * 40)
    batch = BatchReport(
        {
            f"{HOSTILE}/{n}": DownloadReport({"a": one} if n % 10 else {"a": one, "b": no})
            for n in range(1000)
        }
    )
    html = batch._repr_html_()
    assert len(html.encode()) < 2048
    assert len(repr(batch)) < 200
    assert "1000 items: 1000 downloaded (10.0 kB), 100 failed" in html
    assert "100 failed</td>" in html
    assert "404 Not Found" in html
    assert "1 verified" in html
    assert "… and 995 more" in html
    assert len(str(batch).splitlines()) == 23
    assert "… and 980 more" in str(batch)


def test_a_report_of_many_assets_is_small_in_a_notebook() -> None:
    report = DownloadReport({str(n): AssetResult(str(n), "", size=1) for n in range(1000)})
    assert len(report._repr_html_()) < 20_000
    assert "… and 950 more" in report._repr_html_()
    assert repr(report) == "<DownloadReport: 1000 downloaded (1.0 kB)>"


def test_a_notebook_links_the_files_and_says_what_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path.parent / "else where"
    html = DownloadReport(
        {
            "a": AssetResult("a", "", Path("out/a b.csv"), 1, verified=True),
            "b": AssetResult("b", "", elsewhere, 1),
        }
    )._repr_html_()
    left = '<td style="text-align:left;padding-right:1em">'
    assert f'{left}yes</td>{left}a</td>{left}<a href="./out/a%20b.csv">out/a b.csv</a></td>' in html
    assert f'{left}no</td>{left}b</td>{left}<a href="{elsewhere.as_uri()}">' in html


@pytest.mark.parametrize(
    ("key", "printed"),
    [("a.csv", "a.csv"), ("it's", "it's"), ("'quoted'", "'quoted'"), ("x" * 300, "x" * 199 + "…")],
)
def test_keys_are_printed_as_they_are(key: str, printed: str) -> None:
    report = DownloadReport({key: AssetResult(key, "", size=1)})
    assert str(report).splitlines()[0].endswith(f"  {printed}")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_550_000, "1.6 MB"),
        (2 * 10**9, "2.0 GB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_sizes_have_a_unit(size: int | None, text: str) -> None:
    assert human_size(size) == text


def test_a_result_pickles_with_its_error() -> None:
    result = AssetResult("a", "", status="failed", error=DownloadError("no", errors={}))
    assert str(pickle.loads(pickle.dumps(result)).error) == "no"
