"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.benchmarks import contenders
from tests.benchmarks.harness import ROOT, Result, run
from tests.benchmarks.site import Site, Sizes, opened_site
from tests.benchmarks.workloads import WORKLOADS

_DISTRIBUTIONS = (
    "pystac",
    "requests",
    "urllib3",
    "tenacity",
    "orjson",
    "pystac-client",
    "stac-asset",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the workloads that were asked for, print their tables, and write what was measured."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(WORKLOADS))
        return
    # Told to end, it ends the servers and removes the files first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    names = _chosen(options.workloads)
    sizes = _sizes(options)
    machine = _machine()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="stac-gitlab-", dir=options.folder) as temporary:
        folder = Path(temporary)
        (folder / "site").mkdir()
        with opened_site(folder / "site", sizes) as site:
            environment = _environment(folder, site)
            _compile_contenders(environment)
            print(f"{machine['date']}, {machine['processor']}, Python {machine['python']}\n")
            for name in names:
                result = run(
                    WORKLOADS[name](site),
                    rounds=options.rounds,
                    folder=folder / "work",
                    environment=environment,
                    served=site.served,
                )
                results.append(result)
                print(result.table(), end="\n\n", flush=True)
    if options.json is not None:
        measured = {
            "machine": machine,
            "sizes": asdict(sizes),
            "workloads": [result.as_json() for result in results],
        }
        options.json.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    if any(why.startswith("failed") for result in results for why in result.absent.values()):
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="W6 is all of W6-…")
    parser.add_argument("--list", action="store_true", help="show the workloads and end")
    parser.add_argument("--rounds", type=int, help="how often each contender runs (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measures there")
    parser.add_argument("--quick", action="store_true", help="small sizes, and one round")
    parser.add_argument("--folder", help="where to work; files are written and removed there")
    parser.add_argument("--large-file", type=int, metavar="MIB", help="the file of W1, W2, W7")
    parser.add_argument("--tls-file", type=int, metavar="MIB", help="the file of W3")
    parser.add_argument("--files", type=int, help="how many small files there are")
    parser.add_argument("--items", type=int, help="how many items are paged through")
    parser.add_argument("--walk", type=int, action="append", help="items walked through in W7")
    parser.add_argument("--round-trip", type=float, metavar="MS", help="the latency from afar")
    return parser


def _chosen(asked: Sequence[str]) -> list[str]:
    unknown = [a for a in asked if not any(n == a or n.startswith(f"{a}-") for n in WORKLOADS)]
    if unknown:
        raise SystemExit(f"No workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}.")
    return [
        n for n in WORKLOADS if not asked or any(n == a or n.startswith(f"{a}-") for a in asked)
    ]


def _sizes(options: argparse.Namespace) -> Sizes:
    if options.rounds is None:
        options.rounds = 1 if options.quick else 5
    changes: dict[str, Any] = {
        "large_file": options.large_file and options.large_file * 2**20,
        "tls_file": options.tls_file and options.tls_file * 2**20,
        "files": options.files,
        "items": options.items,
        "walks": options.walk and tuple(options.walk),
        "round_trip": None if options.round_trip is None else options.round_trip / 1000,
    }
    sizes = Sizes.quick() if options.quick else Sizes()
    return replace(sizes, **{name: value for name, value in changes.items() if value is not None})


def _environment(folder: Path, site: Site) -> dict[str, str]:
    """Return the environment of the contenders: it trusts the site, and finds this checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    trust = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    path = [str(ROOT), environment.get("PYTHONPATH")]
    return {
        **environment,
        **dict.fromkeys(trust, str(site.certificate)),
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        # Nobody's bytecode is made anew in every run, and none is left in the checkout.
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }


def _compile_contenders(environment: Mapping[str, str]) -> None:
    for path in Path(contenders.__file__).parent.glob("[!_]*.py"):
        # One that cannot be imported is reported where it is to run.
        subprocess.run(
            [sys.executable, "-c", f"import {contenders.__name__}.{path.stem}"],
            env=environment,
            stderr=subprocess.DEVNULL,
            check=False,
        )


def _machine() -> dict[str, Any]:
    versions = {}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "processor": f"{os.cpu_count()} x {_processor()}",
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
