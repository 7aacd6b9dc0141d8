"""What is measured: the workloads, with their contenders and aims."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.documents import COLLECTION
from tests.benchmarks.git_site import TOKEN, giftless_program
from tests.benchmarks.harness import FOLDER, Aim, Contender, FailedError, Measure, Workload
from tests.benchmarks.site import CAP, Site

__all__ = ["WORKLOADS"]

MB = 2**20
OURS = "stac_gitlab"

# By module: the distribution without which it cannot run.
_NEEDS = {
    "ours": "pystac",
    "ours_with_dask": "distributed",
    "ours_with_libraries": "rasterio",
    "ours_without_orjson": "pystac",
    "peer_pystac_client": "pystac-client",
    "peer_stac_asset": "stac-asset",
    "plain_libraries": "rasterio",
    "plain_requests": "requests",
    "plain_urllib3": "urllib3",
    "stock_pystac": "pystac",
}


def _python(name: str, module: str, function: str, *arguments: str) -> Contender:
    command = [sys.executable, "-m", "tests.benchmarks.contenders", module, function, *arguments]
    return Contender(name, command, distribution=_NEEDS.get(module))


def _ours(name: str, function: str, *arguments: str) -> Contender:
    return _python(name, "ours", function, *arguments)


def _stac_asset(name: str, item_url: str) -> Contender:
    return _python(name, "peer_stac_asset", "download", item_url, FOLDER)


def _curl(name: str, *arguments: str) -> Contender:
    return Contender(name, ["curl", "-f", "--no-progress-meter", *arguments], program="curl")


def _files(count: int, size: int) -> Callable[[Path, int | None], None]:
    """Check that the folder holds so many files of so many bytes."""

    def check(folder: Path, _count: int | None) -> None:
        found = sum(1 for path in folder.rglob("*.bin") if path.stat().st_size == size)
        if found != count:
            raise FailedError(f"{found} files of {size} bytes came, not {count}")

    return check


def _counted(expected: int | None) -> Callable[[Path, int | None], None]:
    """Check that the contender counted so many items."""

    def check(_folder: Path, count: int | None) -> None:
        if count != expected:
            raise FailedError(f"{count} items counted, not {expected}")

    return check


def _ratio(name: str, other: str, at_most: float, what: str = "wall") -> Aim:
    redacted = {"wall": "wall time", "inside": "time inside", "cpu": "CPU", "peak": "peak memory"}

    def figure(measures: dict[str, Measure]) -> float:
        return float(getattr(measures[name], what) / getattr(measures[other], what))

    return Aim(f"{redacted[what]} of {name} / {other}", figure, at_most)  # type: ignore[arg-type]  # read only


# -- one large file -----------------------------------------------------------------------------


def _one_file(site: Site) -> Workload:
    size, name = site.sizes.large_file, "large.bin"
    item_url = site.file_item(name, size, "near")
    url, path = f"{site.origin('near')}/{name}", f"{FOLDER}/{name}"
    return Workload(
        "W1",
        f"one file of {size // MB} MiB, HTTP, to disk",
        [
            _curl("curl", "-o", path, url),
            _python("bare socket", "bare_socket", "one_file", url, path),
            _python("requests, streamed", "plain_requests", "streamed", url, path),
            _stac_asset("stac-asset", item_url),
            _ours(OURS, "download", item_url, FOLDER),
        ],
        _files(1, size),
        [
            _ratio(OURS, "bare socket", 1.2),
            _ratio(OURS, "bare socket", 1.2, "inside"),
        ],
    )


def _one_file_hashed(site: Site) -> Workload:
    size, name = site.sizes.large_file, "large.bin"
    item_url = site.file_item(name, size, "near", hashed=True)
    url, path = f"{site.origin('near')}/{name}", f"{FOLDER}/{name}"
    script = (
        f"curl -f --no-progress-meter -o '{path}' '{url}' && sha256sum '{path}' >'{FOLDER}/sum'"
    )
    socket, alone = "bare socket", "the hash alone"
    return Workload(
        "W2",
        f"the same {size // MB} MiB with SHA-256 on the way",
        [
            _curl("curl, unhashed", "-o", path, url),
            Contender("curl, then sha256sum", ["sh", "-c", script], program="curl"),
            _python(socket, "bare_socket", "one_file", url, path),
            _python("bare socket, hashing in line", "bare_socket", "one_file", url, path, "yes"),
            replace(_python(alone, "bare_socket", "hash_alone", path), continues=socket),
            _ours(OURS, "download", item_url, FOLDER),
        ],
        _files(1, size),
        [
            Aim(
                f"time inside of {OURS} / the longer of {socket} and {alone}",
                lambda m: m[OURS].inside / max(m[socket].inside, m[alone].inside),
                1.3,
            )
        ],
    )


def _one_file_tls(site: Site) -> Workload:
    size, name = site.sizes.tls_file, "tls.bin"
    socket = "bare socket, hashing in line"
    item_url = site.file_item(name, size, "tls", hashed=True)
    url, path = f"{site.origin('tls')}/{name}", f"{FOLDER}/{name}"
    return Workload(
        "W3",
        f"one file of {size // MB} MiB over TLS, with SHA-256",
        [
            _curl("curl, unhashed", "-o", path, url),
            _python(socket, "bare_socket", "one_file", url, path, "yes"),
            _stac_asset("stac-asset, unhashed", item_url),
            _ours(OURS, "download", item_url, FOLDER),
        ],
        _files(1, size),
        [_ratio(OURS, socket, 1.0), _ratio(OURS, socket, 1.0, "inside")],
    )


# -- many small files ---------------------------------------------------------------------------


def _small_files(site: Site) -> Workload:
    sizes = site.sizes
    item_url, urls = site.small_files_item("near"), str(site.url_list("near"))
    return Workload(
        "W4",
        f"{sizes.files} files of {sizes.small_file // 1000} KB, no latency",
        [
            _stac_asset("stac-asset", item_url),
            _curl("curl -Z", "-Z", "-K", str(site.curl_list("near"))),
            _python("bare socket", "bare_socket", "many_files", urls, FOLDER, "1"),
            _python("urllib3", "plain_urllib3", "many_files", urls, FOLDER),
            _python("requests, 8 sessions", "plain_requests", "sessions", urls, FOLDER, "8"),
            _python("requests, the guide's way", "plain_requests", "guide", urls, FOLDER),
            _ours(OURS, "download", item_url, FOLDER),
        ],
        _files(sizes.files, sizes.small_file),
        [_ratio(OURS, "stac-asset", 0.85), _ratio(OURS, "urllib3", 1.6, "cpu")],
    )


def _small_files_from_afar(site: Site) -> Workload:
    sizes = site.sizes
    item_url, urls = site.small_files_item("far"), str(site.url_list("far"))
    hinted = f"{OURS}, RateLimit-Remaining"
    return Workload(
        "W5",
        f"{sizes.files} files of {sizes.small_file // 1000} KB at {_trip(site)}",
        [
            _stac_asset("stac-asset", item_url),
            _curl("curl -Z", "-Z", "-K", str(site.curl_list("far"))),
            _python("16 bare sockets", "bare_socket", "many_files", urls, FOLDER, "16"),
            _python("urllib3, 16 threads", "plain_urllib3", "many_files", urls, FOLDER, "16"),
            _python("requests, 16 sessions", "plain_requests", "sessions", urls, FOLDER, "16"),
            _python("requests, 32 sessions", "plain_requests", "sessions", urls, FOLDER, "32"),
            _ours(OURS, "download", item_url, FOLDER),
            _ours(hinted, "download", site.small_files_item("far-hinting"), FOLDER),
            _ours(f"{OURS}, max_workers=16", "download", item_url, FOLDER, "16"),
        ],
        _files(sizes.files, sizes.small_file),
        [
            _ratio(hinted, "stac-asset", 1.0),
            _ratio(OURS, "stac-asset", 1.1),
            _ratio(f"{OURS}, max_workers=16", "16 bare sockets", 1.1),
            _ratio(f"{OURS}, max_workers=16", "16 bare sockets", 1.1, "inside"),
        ],
    )


def _trip(site: Site) -> str:
    return f"a round trip of {site.sizes.round_trip * 1000:.0f} ms"


def _second_run(site: Site) -> Workload:
    sizes = site.sizes
    runs: list[Contender] = []
    aims: list[Aim] = []
    for kind, hashed in (("", False), (", checksums in the metadata", True)):
        item_url = site.small_files_item("far", hashed=hashed)
        first = _ours(f"first run{kind}", "download", item_url, FOLDER)
        second = Contender(f"second run{kind}", first.command, continues=first.name)
        runs += [first, second]
        aims += [_ratio(second.name, first.name, 0.5), _no_bodies(second.name, item_url, site)]
    return Workload(
        "W9",
        f"a second run over {sizes.files} unchanged files, at {_trip(site)}",
        runs,
        _files(sizes.files, sizes.small_file),
        aims,
    )


def _project(site: Site) -> Workload:
    sizes, item_url = site.sizes, site.project_item("far")
    archive, files = "archive", "one request a file"
    second, third = "second run", "third run"
    first = _ours(files, "download", item_url, FOLDER)
    return Workload(
        "W16",
        f"a GitLab project of {sizes.files} files of {sizes.small_file // 1000} KB, at "
        f"{_trip(site)}",
        [
            first,
            _ours(archive, "project", item_url, FOLDER),
            replace(first, name=second, continues=files),
            replace(first, name=third, continues=files),
        ],
        _files(sizes.files, sizes.small_file),
        [
            _ratio(third, files, 0.1, "inside"),
        ],
    )


def _no_bodies(name: str, item_url: str, site: Site) -> Aim:
    # What is sent in any case is the item itself.
    item_bytes = site.item_bytes(item_url)
    return Aim(
        f"body bytes of files sent in the {name}",
        lambda measures: measures[name].body_bytes - item_bytes,
        0,
    )


def _capped(site: Site) -> Workload:
    size, name = site.sizes.capped_file, "capped.bin"
    item_url = site.file_item(name, size, "capped")
    url, path = f"{site.origin('capped')}/{name}", f"{FOLDER}/{name}"
    four, one = f"{OURS}, 4 segments", OURS
    return Workload(
        "W10",
        f"one file of {size // MB} MiB, {CAP // 10**6} MB/s for each connection",
        [
            _curl("curl", "-o", path, url),
            _ours(one, "download", item_url, FOLDER),
            _ours(four, "in_segments", item_url, FOLDER, "4"),
        ],
        _files(1, size),
        [
            _ratio(four, one, 1 / 3.5),
        ],
    )


# -- paging -------------------------------------------------------------------------------------


def _paging(name: str, listener: str, version: str, objects: float) -> Callable[[Site], Workload]:
    def workload(site: Site) -> Workload:
        count = site.sizes.items
        landing_url = site.api(listener, version=version, items=count)
        collection_url = f"{landing_url}collections/{COLLECTION}"
        latency = "no latency" if listener == "near" else _trip(site)
        dicts = (
            []
            if listener == "far"
            else [
                _ratio(f"{OURS}, dicts", f"{plain}, dicts", 1.15, "inside")
                for plain in ("urllib3", "requests")
            ]
        )
        return Workload(
            name,
            f"{count} items of 3 KB, STAC {version}, pages of 100, {latency}",
            [
                _python("pystac-client", "peer_pystac_client", "objects", landing_url),
                _ours(OURS, "objects", collection_url),
                _python(f"{OURS}, no orjson", "ours_without_orjson", "objects", collection_url),
                _python("requests, dicts", "plain_requests", "dicts", collection_url),
                _python("urllib3, dicts", "plain_urllib3", "dicts", collection_url),
                _ours(f"{OURS}, dicts", "dicts", collection_url),
                _python(
                    f"{OURS}, dicts, no orjson", "ours_without_orjson", "dicts", collection_url
                ),
            ],
            _counted(count),
            [
                _ratio(OURS, "pystac-client", objects),
                _ratio(OURS, "pystac-client", objects, "inside"),
                *dicts,
            ],
        )

    return workload


def _one_by_one(name: str, listener: str, aims: Sequence[Aim] = ()) -> Callable[[Site], Workload]:
    def workload(site: Site) -> Workload:
        url = site.static_collection(listener)
        latency = "no latency" if listener == "near" else _trip(site)
        return Workload(
            name,
            f"{site.sizes.static_items} items of 3 KB, a link to each, {latency}",
            [
                _python("pystac", "stock_pystac", "objects", url),
                _ours(OURS, "objects", url),
            ],
            _counted(site.sizes.static_items),
            aims,
        )

    return workload


def _mirror(site: Site) -> Workload:
    count = site.sizes.items
    landing_url = site.api("near", version="1.1.0", items=count)
    collection_url = f"{landing_url}collections/{COLLECTION}"
    walk, files, first, second = "walk", "files alone", "mirror", "mirror, second run"
    return Workload(
        "W11",
        f"a mirror of {count} items of 3 KB without assets, no latency",
        [
            _ours(walk, "objects", collection_url),
            _python(files, "small_files", "create", FOLDER, str(count), "3000"),
            _ours(first, "mirror", collection_url, FOLDER),
            replace(_ours(second, "mirror", collection_url, FOLDER), continues=first),
        ],
        _counted(count),
        [
            _ratio(first, walk, 1.3),
            Aim(
                f"wall time of {first} / {walk} and {files}",
                lambda m: m[first].wall / (m[walk].wall + m[files].wall),
                1.3,
            ),
            _ratio(second, first, 0.3),
        ],
    )


# -- publishing ---------------------------------------------------------------------------------


def _publishing(name: str, source: Path, site: Site) -> Contender:
    gitlab = site.git[0] if Path(giftless_program()).exists() else ""
    made = _ours(name, "publish_folder", str(source), gitlab, TOKEN, FOLDER)
    return replace(made, program=giftless_program())


def _upload(site: Site) -> Workload:
    size = site.sizes.large_file
    source = site.folder_of("upload", 1, size)
    lfs = site.git[1] if Path(giftless_program()).exists() else ""
    name, arguments = "curl -T", (str(source), lfs, FOLDER)
    hashed = f"SHA-256, then {name}"
    curl = _python(name, "plain_curl", "upload", *arguments, str(site.sha256_file(source)))
    hashing = _python(hashed, "plain_curl", "upload", *arguments)
    imports = "imports alone"
    return Workload(
        "W13",
        f"one file of {size // MB} MiB to Git LFS",
        [
            replace(curl, program=giftless_program()),
            replace(hashing, program=giftless_program()),
            _ours(imports, "nothing"),
            _publishing(OURS, source, site),
        ],
        aims=[
            _ratio(OURS, name, 1.3),
            _ratio(OURS, hashed, 1.3),
            Aim(f"MB of {OURS} over imports", lambda m: (m[OURS].peak - m[imports].peak) / MB, 64),
        ],
    )


def _publish_small_files(site: Site) -> Workload:
    count, size = site.sizes.files, site.sizes.small_file
    first = _publishing("first publish", site.folder_of("many", count, size), site)
    second = replace(first, name="second publish, unchanged", continues=first.name)
    return Workload(
        "W14",
        f"{count} files of {size // 1000} KB to a repository",
        [first, second],
        # All files are in one commit, or there is nothing to commit.
        lambda _folder, commits: _counted(min(commits or 0, 1))(_folder, commits),
        [_ratio(second.name, first.name, 0.5)],
    )


# -- memory and imports -------------------------------------------------------------------------


def _memory(site: Site) -> Workload:
    size, name = site.sizes.large_file, "large.bin"
    plain = site.file_item(name, size, "near")
    hashed = site.file_item(name, size, "near", hashed=True)
    walks = {}
    for count in site.sizes.walks:
        landing_url = site.api("near", version="1.1.0", items=count)
        walks[count] = f"{landing_url}collections/{COLLECTION}"
    smallest, largest = min(walks), max(walks)
    imports = "imports alone"

    def over_imports(text: str, name: str) -> Aim:
        return Aim(text, lambda m: (m[name].peak - m[imports].peak) / MB, 64)

    return Workload(
        "W7",
        "memory at the worst moment",
        [
            _ours(imports, "nothing"),
            _ours(f"a file of {size // MB} MiB", "download", plain, FOLDER),
            _ours("the same, hashed", "download", hashed, FOLDER),
            *(_ours(f"a walk of {n} items", "objects", url) for n, url in walks.items()),
        ],
        aims=[
            over_imports("MB over imports for the file", f"a file of {size // MB} MiB"),
            over_imports("MB over imports for the hashed file", "the same, hashed"),
            _ratio(f"a walk of {largest} items", f"a walk of {smallest} items", 1.2, "peak"),
        ],
    )


def _growth(site: Site) -> Workload:
    imports, size = "imports alone", 1000
    names = {count: f"{count} files" for count in site.sizes.growth}
    fewest, *more = site.sizes.growth

    def per_file(count: int, what: str) -> Callable[[dict[str, Measure]], float]:
        def cost(measures: dict[str, Measure], files: int) -> float:
            measure = measures[names[files]]
            return (measure.inside if what == "time" else measure.peak) / files

        return lambda measures: cost(measures, count) / cost(measures, fewest)

    return Workload(
        "W17",
        f"many files of {size} bytes of one item, no latency",
        [
            _ours(imports, "nothing"),
            *(
                _ours(name, "download", site.same_files_item(count, size), FOLDER)
                for count, name in names.items()
            ),
        ],
        aims=[
            Aim(f"{what} for each of {count} files / of {fewest}", per_file(count, what), 1.2)
            for what in ("time", "peak memory")
            for count in more
        ],
    )


def _imports(_site: Site) -> Workload:
    def importing(name: str, statement: str) -> Contender:
        return Contender(name, [sys.executable, "-c", statement])

    return Workload(
        "W8",
        "imports",
        [
            importing("pystac, requests, tenacity", "import pystac, requests, tenacity"),
            importing("nothing", ""),
            importing("pystac", "import pystac"),
            # The package imports its modules when they are used.
            importing(OURS, "from stac_gitlab import GitLabStacIO"),
            Contender("stac-gitlab --help", [sys.executable, "-m", "stac_gitlab", "--help"]),
        ],
        aims=[
            _ratio(OURS, "pystac, requests, tenacity", 1.1),
            _ratio("stac-gitlab --help", "pystac", 1.5),
        ],
    )


def _cluster(site: Site) -> Workload:
    sizes, ours, dask = site.sizes, f"{OURS}, threads", "Dask, two processes"
    item_url = site.small_files_item("near")

    def on_workers(name: str, *more: str) -> Contender:
        return _python(name, "ours_with_dask", "download", item_url, FOLDER, *more)

    return Workload(
        "W12",
        f"{sizes.files} items of one file of {sizes.small_file // 1000} KB in a Dask cluster",
        [
            _ours(ours, "download", item_url, FOLDER),
            on_workers(dask),
            on_workers(f"{dask}, one of them killed", "kill"),
        ],
        _files(sizes.files, sizes.small_file),
    )


# -- under other libraries ----------------------------------------------------------------------


def _under_libraries(
    name: str,
    title: str,
    functions: Mapping[str, str],
    aims: Callable[[Site, str], Sequence[Aim]],
    listener: str = "near",
) -> Callable[[Site], Workload]:
    """Return a workload of :mod:`ours_with_libraries` and of :mod:`plain_libraries`."""

    def workload(site: Site) -> Workload:
        try:
            item_url = site.library_item(listener)
        except ImportError:
            # The contenders are skipped.
            item_url = ""
        home = f"{site.origin(listener)}/libraries"
        rivals = [
            _python(rival, "plain_libraries", function, home)
            for rival, function in functions.items()
            if rival != OURS
        ]
        ours = _python(OURS, "ours_with_libraries", functions[OURS], item_url)
        at = "no latency" if listener == "near" else _trip(site)
        return Workload(name, f"{title}, {at}", [*rivals, ours], aims=aims(site, item_url))

    return workload


def _requests(at_most: float) -> Aim:
    return Aim("requests, with that of the item", lambda m: m[OURS].requests, at_most)


def _megabytes(site: Site, item_url: str, at_most: float) -> Aim:
    item_bytes = site.item_bytes(item_url) if item_url else 0
    return Aim(
        "MB of the file that were sent",
        lambda m: (m[OURS].body_bytes - item_bytes) / 1e6,
        at_most,
    )


WORKLOADS: dict[str, Callable[[Site], Workload]] = {
    "W1": _one_file,
    "W2": _one_file_hashed,
    "W3": _one_file_tls,
    "W4": _small_files,
    "W5": _small_files_from_afar,
    "W6": _paging("W6", "near", "1.1.0", 0.5),
    "W6-older": _paging("W6-older", "near", "1.0.0", 0.8),
    "W6-far": _paging("W6-far", "far", "1.1.0", 0.65),
    "W6-older-far": _paging("W6-older-far", "far", "1.0.0", 0.8),
    "W6-static": _one_by_one("W6-static", "near"),
    "W6-static-far": _one_by_one("W6-static-far", "far", [_ratio(OURS, "pystac", 0.15)]),
    "W7": _memory,
    "W8": _imports,
    "W9": _second_run,
    "W10": _capped,
    "W11": _mirror,
    "W12": _cluster,
    "W13": _upload,
    "W14": _publish_small_files,
    "W16": _project,
    "W17": _growth,
    "W15-table": _under_libraries(
        "W15-table",
        "pandas.read_csv of 5.2 MB",
        {"fsspec's HTTP": "table", OURS: "table"},
        lambda _site, _url: [_requests(6)],
    ),
    "W15-column": _under_libraries(
        "W15-column",
        "one of ten columns of a Parquet file of 50 MB",
        {"the whole file": "whole_column", "fsspec's HTTP": "column", OURS: "column"},
        lambda site, url: [_megabytes(site, url, 12.5)],
    ),
    "W15-window": _under_libraries(
        "W15-window",
        "one window of a COG of 9 MB",
        {"GDAL's HTTP": "window", OURS: "window"},
        lambda site, url: [_requests(3), _megabytes(site, url, 2.1)],
    ),
    "W15-zarr": _under_libraries(
        "W15-zarr",
        "100 chunks of a Zarr folder",
        {"fsspec's HTTP": "chunks", OURS: "chunks"},
        lambda _site, _url: [_ratio(OURS, "fsspec's HTTP", 1.2, "inside")],
        listener="far",
    ),
}
"""What makes each workload, once there is a site to read from."""
