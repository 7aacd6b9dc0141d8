"""Progress reports and progress bars."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import fault_server as faulty
import pytest
from sample_items import BODY, SHA256, files_in, item_of, served

from stac_gitlab import STACDownloader
from stac_gitlab.download import notebook_bars
from stac_gitlab.download.progress import (
    LARGE_FILE,
    MAX_FILE_BARS,
    _Bars,
    check_progress,
    open_progress,
)
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.testing import Answer, Fault, LoopbackServer


class RecordingProgress:
    """Records all calls, and checks that they are consistent."""

    def __init__(self) -> None:
        self.files = 0
        self.size = 0
        self.received: dict[str, list[int]] = {}
        self.totals: dict[str, set[int | None]] = {}
        self.ended: dict[str, int | None] = {}

    def expect(self, files: int, size: int | None) -> None:
        self.files += files
        self.size += size or 0

    def advance(self, key: str, received: int, total: int | None) -> None:
        assert key not in self.ended
        assert total is None or 0 < received <= total
        self.received.setdefault(key, []).append(received)
        self.totals.setdefault(key, set()).add(total)

    def done(self, key: str, size: int | None) -> None:
        assert key not in self.ended
        self.ended[key] = size


def test_progress_of_every_file_is_reported(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    progress = RecordingProgress()
    item = served(server, "a.csv", big=BODY * 20)
    item.assets["big"].extra_fields["file:size"] = len(BODY) * 20
    downloader.download_assets(item, tmp_path, progress=progress)
    assert (progress.files, progress.size) == (2, len(BODY) * 20)
    assert progress.ended == {"a.csv": 16, "big": len(BODY) * 20}
    assert {key: received[-1] for key, received in progress.received.items()} == progress.ended
    assert progress.received["big"] == sorted(set(progress.received["big"]))
    assert progress.totals == {"a.csv": {16}, "big": {len(BODY) * 20}}


@pytest.mark.parametrize("resumes", [True, False])
def test_the_numbers_are_right_after_a_broken_connection(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, resumes: bool
) -> None:
    progress = RecordingProgress()
    item = served(server, big=BODY)
    server.inject(faulty.cut(30_000))
    if not resumes:
        server.inject(Fault(status=416))
        server.inject(faulty.cut(10_000))
    downloader.download_assets(item, tmp_path, progress=progress)
    received = progress.received["big"]
    assert received[-1] == len(BODY)
    assert (received == sorted(received)) == resumes
    assert progress.totals["big"] == {len(BODY)}
    assert files_in(tmp_path) == {"big": BODY}


def test_skipped_and_failed_files_are_reported_as_done(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    item = served(server, "gone", there=BODY)
    item.assets["there"].extra_fields["file:checksum"] = SHA256
    (tmp_path / "there").write_bytes(BODY)
    server.inject(Fault(path="gone", status=404))
    progress = RecordingProgress()
    with pytest.raises(Exception, match="gone"):
        downloader.download_assets(item, tmp_path, progress=progress)
    assert progress.ended == {"there": len(BODY), "gone": None}
    assert progress.received == {}


def test_the_option_of_a_call_overrides_that_of_the_downloader(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    one, other = RecordingProgress(), RecordingProgress()
    downloader.progress = one
    item = served(server, "a.csv")
    downloader.download_assets(item, tmp_path / "1", progress=other)
    downloader.download_item(item, tmp_path / "2")
    downloader.download_assets(item, tmp_path / "3", progress=False)
    assert (one.files, other.files) == (1, 1)


@pytest.mark.parametrize("wrong", ["yes", 1, print, object()])
def test_an_invalid_option_is_rejected(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="expect, advance and done"):
        check_progress(wrong)


# -- bars ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [True, "force"])
def test_bars_without_tqdm_say_how_to_get_it(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: Any,
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'stac-gitlab\[progress\]'"):
        downloader.download_assets(served(server, "a"), tmp_path, progress=option)
    assert server.requests == []


@pytest.mark.parametrize(
    ("option", "terminal", "is_shown"),
    [(True, False, False), (True, True, True), ("force", False, True), (None, True, False)],
)
def test_bars_are_shown_on_terminals_only_unless_forced(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: Any,
    terminal: bool,
    is_shown: bool,
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    downloader.download_assets(served(server, "a", big=BODY), tmp_path, progress=option)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("2 files" in err) == is_shown


def test_bars_are_not_shown_without_a_console(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", None)
    with open_progress(True) as progress:
        assert not isinstance(progress, _Bars)


class Bar:
    """The part of tqdm that is used, without a terminal."""

    made: ClassVar[list[Bar]] = []

    def __init__(self, *, total: int | None, desc: str, position: int, **_: Any) -> None:
        assert position not in [bar.position for bar in self.made if not bar.closed]
        self.total, self.desc, self.position, self.n, self.closed = total, desc, position, 0, False
        self.pos = -position
        self.initial = self.last_print_n = 0
        self.made.append(self)

    def set_description(self, desc: str, refresh: bool = True) -> None:
        self.desc = desc

    def refresh(self) -> None: ...

    def update(self, n: int) -> None:
        assert not self.closed
        self.n += n

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars() -> Iterator[_Bars]:
    Bar.made.clear()
    made = _Bars(Bar)
    yield made
    made.close()
    assert all(bar.closed for bar in Bar.made)


def test_the_bar_of_all_bytes_adds_up(bars: _Bars) -> None:
    whole = Bar.made[0]
    bars.expect(2, 150)
    bars.expect(1, 0)
    assert (whole.total, whole.desc) == (150, "0 of 3 files")
    bars.advance("a", 60, 100)
    bars.advance("b", 20, 50)
    assert whole.n == 80
    bars.advance("a", 10, 100)
    assert whole.n == 30
    bars.done("a", 100)
    bars.done("b", 50)
    bars.done("skipped", 7)
    assert (whole.n, whole.total, whole.desc) == (157, 157, "3 of 3 files")


def test_the_total_grows_with_the_sizes_that_become_known(bars: _Bars) -> None:
    whole = Bar.made[0]
    bars.expect(3, 100)
    bars.advance("a", 10, 100)
    assert whole.total == 100
    bars.advance("b", 10, 200)
    bars.advance("c", 10, None)
    assert whole.total == 310
    bars.advance("c", 60, None)
    assert whole.total == 360
    for key, size in (("a", 100), ("b", 200), ("c", 70)):
        bars.done(key, size)
    assert (whole.n, whole.total, whole.desc) == (370, 370, "3 of 3 files")


def test_a_failed_file_leaves_the_bar_below_its_total(bars: _Bars) -> None:
    bars.expect_each({"a": None, "b": 50})
    bars.advance("a", 60, 100)
    bars.done("a", None)
    bars.done("b", None)
    whole = Bar.made[0]
    assert (whole.n, whole.total, whole.desc) == (60, 150, "2 of 2 files")


def test_sizes_of_the_metadata_and_of_responses_add_up(bars: _Bars) -> None:
    whole = Bar.made[0]
    bars.expect_each({"a": 100, "b": None, "c": 100})
    assert whole.total == 200
    bars.advance("b", 10, 400)
    assert whole.total == 600, "not the greater of both"
    bars.advance("a", 10, None)
    assert whole.total == 600
    bars.advance("c", 10, 120)
    assert whole.total == 620
    for key, size in (("a", 100), ("b", 400), ("c", 120)):
        bars.done(key, size)
    assert (whole.n, whole.total, whole.desc) == (620, 620, "3 of 3 files")


def test_a_skipped_file_is_no_part_of_the_rate(bars: _Bars) -> None:
    whole = Bar.made[0]
    bars.expect_each({"there": 900, "new": 100})
    bars.skip("there", 900)
    bars.advance("new", 100, 100)
    assert (whole.n, whole.total, whole.initial, whole.last_print_n) == (1000, 1000, 900, 900)


def test_a_few_large_files_have_bars_and_each_its_own_line(bars: _Bars) -> None:
    for number in range(8):
        bars.advance(str(number), 1, LARGE_FILE)
    assert len(Bar.made) == 1 + MAX_FILE_BARS
    bars.done("1", LARGE_FILE)
    bars.done("2", LARGE_FILE)
    for number in range(8, 12):
        bars.advance(str(number), 1, LARGE_FILE)
    assert [bar.desc for bar in Bar.made if not bar.closed][1:] == ["0", "3", "8", "9"]


def test_small_files_have_no_bars_and_others_when_they_turn_out_to_be_large(bars: _Bars) -> None:
    for number in range(8):
        bars.advance(str(number), 1, LARGE_FILE - 1)
    bars.advance("8", 1, None)
    assert len(Bar.made) == 1
    bars.advance("8", LARGE_FILE, None)
    assert [bar.desc for bar in Bar.made[1:]] == ["8"]


@pytest.mark.parametrize("notebook", [False, True])
def test_bars_that_the_environment_disables_are_not_shown(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    output: Output,
    notebook: bool,
) -> None:

    class Disabled(pytest.importorskip("tqdm").tqdm):  # type: ignore[misc]  # without types
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, disable=True)

    # TQDM_DISABLE=1 does the same, but only when tqdm is imported.
    for name in ("tqdm.auto.tqdm", "tqdm.std.tqdm"):
        monkeypatch.setattr(name, Disabled)
    if not notebook:
        monkeypatch.setitem(sys.modules, "IPython", None)
    item = served(server, "a", big=BODY)
    item.assets["big"].extra_fields["file:checksum"] = SHA256
    for _ in range(2):
        assert downloader.download_assets(item, tmp_path, progress="force").ok
    assert capsys.readouterr().err == ""
    assert output.shown == []


@pytest.fixture
def seen_bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Real bars, which keep what they showed, in the order in which they are made."""
    made: list[Any] = []

    class SeenBar(pytest.importorskip("tqdm.auto").tqdm):  # type: ignore[misc]  # without types
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, file=io.StringIO(), mininterval=0)
            self.seen: list[tuple[float, float | None]] = []
            made.append(self)

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            self.seen.append((self.n, self.total))
            return shown

    monkeypatch.setattr("tqdm.auto.tqdm", SeenBar)
    return made


@pytest.mark.parametrize("executor", [None, "processes"])
@pytest.mark.parametrize("sized", [0, 2, 3])
def test_the_bar_of_all_bytes_never_runs_beyond_its_total(
    sized: int,
    executor: str | None,
    server: LoopbackServer,
    tmp_path: Path,
    seen_bars: list[Any],
) -> None:
    fields: dict[str, dict[str, Any]] = {}
    for number in range(3):
        server.route(f"/{number}", BODY)
        fields[str(number)] = {"href": f"{server.url}/{number}"}
        if number < sized:
            fields[str(number)]["file:size"] = len(BODY)
    context = multiprocessing.get_context("spawn")
    with (
        STACDownloader(base_url=server.url) as downloader,
        ProcessPoolExecutor(1, context) if executor else contextlib.nullcontext() as pool,
    ):
        downloader.download_assets(item_of(fields), tmp_path, progress="force", executor=pool)
    whole = seen_bars[0]
    assert (whole.n, whole.total) == (3 * len(BODY), 3 * len(BODY))
    assert all(total is not None and n <= total for n, total in whole.seen)
    shown = whole.fp.getvalue()  # what the terminal got
    assert "3 of 3 files: 100%" in shown
    assert "B/s" in shown


def test_bars_of_real_tqdm_end_where_they_should(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("tqdm")
    contents = {f"{n}.bin": BODY for n in range(12)}
    for key in contents:
        server.route(f"/{key}", Answer(200, (), BODY))
    fields = {k: {"href": f"{server.url}/{k}", "file:size": len(BODY)} for k in contents}
    downloader.download_assets(item_of(fields), tmp_path, progress="force")
    err = capsys.readouterr().err
    assert "12 files: 100%" in err
    assert "480k/480k" in err


# -- in a notebook; `notebooks/test_progress.py` uses a real one -----------------------------------


class Output:
    """An output of a cell, which keeps what it showed."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def display(self, shown: dict[str, str], *, raw: bool, display_id: bool) -> Output:
        assert raw
        assert display_id
        assert self.shown == []
        self.shown.append(shown)
        return self

    def update(self, shown: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.shown.append(shown)


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Output:
    """Pretend to be in a notebook."""
    pytest.importorskip("tqdm")
    output = Output()
    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    vars(ipython)["get_ipython"] = lambda: SimpleNamespace(kernel=None)
    vars(module)["display"] = output.display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return output


def test_a_notebook_shows_all_bars_in_one_output(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "<script>\x1b[2J"
    monkeypatch.setattr(notebook_bars, "_MIN_INTERVAL", 0)
    with open_progress(True) as bars:
        bars.expect(2, 4 * LARGE_FILE)
        bars.advance(hostile, LARGE_FILE, 3 * LARGE_FILE)
        bars.advance("small", 5, 5)
        bars.expect(0, 0)
        html = output.shown[-1]["text/html"]
        assert html.count(f'<progress value="{LARGE_FILE + 5}" max="{4 * LARGE_FILE}">') == 1
        assert html.count(f'<progress value="{LARGE_FILE}" max="{3 * LARGE_FILE}">') == 1
        assert "&lt;script&gt;" in html
        assert "<script" not in html
        assert html.isprintable()
        [whole, one] = output.shown[-1]["text/plain"].splitlines()
        assert whole.startswith("0 of 2 files: 25%, 10.0M of 40.0M, ")
        assert one.endswith("B/s")
        bars.done(hostile, 3 * LARGE_FILE)
        bars.done("small", 5)
    assert output.shown[-1]["text/plain"].startswith("2 of 2 files: ")
    assert output.shown[-1]["text/html"].count("<progress") == 1


def test_a_notebook_is_not_flooded_with_updates(output: Output) -> None:
    with open_progress(True) as bars:
        bars.expect(1000, 0)
        for number in range(1000):
            bars.advance(str(number), 1, 1)
            bars.done(str(number), 1)
    assert len(output.shown) < 200
    assert output.shown[-1]["text/plain"].startswith("1000 of 1000 files: 100%")
