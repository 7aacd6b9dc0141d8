"""How much space is left, and who may use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stac_gitlab.files.disk_space import SpaceClaim, free_space, is_nearly_full


def test_the_free_space_of_a_folder_is_known(tmp_path: Path) -> None:
    assert free_space(tmp_path)
    assert free_space(tmp_path / "missing") is None


def test_a_file_system_that_reports_no_size_has_no_known_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(total=0, free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert free_space(tmp_path) is None


@pytest.mark.parametrize(
    ("total", "free", "nearly_full"),
    [(64, 3, True), (64, 4, False), (10**6, 255, True), (10**6, 257, False), (0, 0, False)],
)
def test_a_disk_is_nearly_full_before_others_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, free: int, nearly_full: bool
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(total=total * 2**20, free=free * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert is_nearly_full(tmp_path) == nearly_full


def needs(size: int) -> Callable[[], int]:
    return lambda: size


def test_downloads_share_the_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(total=1000, free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    first, second, third = (SpaceClaim(tmp_path, needs(size)) for size in (60, 60, 40))
    assert first.take() is None
    assert first.take() is None
    assert second.take() == 40
    assert third.take() is None
    third.release()
    first.release()
    assert second.take() is None
    second.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_process_holds_no_claims_of_its_parent() -> None:
    claim = SpaceClaim(Path.cwd(), needs(1))
    assert claim.take() is None
    try:
        SpaceClaim._renew()
        assert SpaceClaim._held == set()
    finally:
        claim.release()
