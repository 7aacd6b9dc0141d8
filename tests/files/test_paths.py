"""Asset keys as file names: inside the folder, or refused."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stac_gitlab.errors import DownloadError, UnsafePathError
from stac_gitlab.files.paths import (
    STRICTEST_NAMING,
    FileNaming,
    TakenNames,
    contained_path,
    relative_path,
)
from stac_gitlab.redaction import quoted

posix_only = pytest.mark.skipif(os.name != "posix", reason="Windows wants a privilege for links")

HONEST = [
    "lakes.csv",
    "data/train.csv",
    "a/b/c/d.txt",
    "data/a#b.csv",
    "100%.csv",
    "pct%20enc.csv",
    "plus+plus.csv",
    "données été.csv",
    "データ.csv",
    "sub dir/with space.csv",
    "semi;colon.csv",
    "amp&eq=.csv",
    ".gitignore",
    ".dvc/config",
    "...hidden",
    "a..b.csv",
    "-rf",
    "~",
    "$HOME",
    "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.csv",
    "👩\u200d🌾.png",
]
ONLY_HERE = [
    'quo"te.csv',
    "what?.csv",
    "star*.csv",
    "a|b",
    "<x>",
    "back\\slash.csv",
    "colon:name.csv",
    "a:b.tif",
    "CON",
    "con.txt",
    "data/NUL",
    "Aux.tar.gz",
    "COM1",
    "lpt9.csv",
    "COM\u00b9",
    "nul .txt",
    "CONIN$",
    "prn:stream",
    "trailing.",
    "trailing ",
    "data./x.csv",
    "...",
    " ",
]
LEADING_OUT = ["..", "../evil", "a/../../evil", "a/..", "../../etc/passwd"]
FOLDERS_THEMSELVES = [".", "./a", "a/./b"]
BACKSLASHED_OUT = ["..\\evil", "a\\..\\..\\evil", "data/..\\..\\evil", "x/a\\.."]
ABSOLUTE = ["/etc/passwd", "/", "//host/share", "\\\\host\\share", "\\evil", "C:\\x", "Z:/x"]
EMPTY_PARTS = ["a//b", "a/", "data/"]
INVISIBLE = [
    "a\nb",
    "a\tb",
    "\x00",
    "a\x1b[31mred",
    "del\x7f",
    "c1\x85",
    "exe\u202etxt.csv",
    "a\u200eb",
    "a\u200bb",
    "\ufeffbom.csv",
    "soft\u00adhyphen",
    "line\u2028break",
    "para\u2029graph",
    "isolate\u2066d",
    "tag\U000e0041",
    "lone\ud800surrogate",
    "bytes\udcff.csv",
]
LOOKALIKES = [
    "\uff0fetc\uff0fpasswd",
    "..\u2215evil",
    "..\u2044evil",
    "\uff0e\uff0e/evil",
    "a\uff3cb",
]


@pytest.mark.parametrize("key", HONEST)
def test_an_ordinary_key_is_its_own_path(key: str) -> None:
    assert relative_path(key, portable=False) == key
    assert relative_path(key, portable=True) == key


@pytest.mark.parametrize("key", ONLY_HERE)
def test_a_name_that_windows_forbids_is_refused_only_for_portable_names(key: str) -> None:
    assert relative_path(key, portable=False) == key
    with pytest.raises(UnsafePathError, match=r"Windows"):
        relative_path(key, portable=True)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("python://a.py", "python%3A%2F%2Fa.py"),
        ("s3://bucket/dir/a.tif", "s3%3A%2F%2Fbucket/dir/a.tif"),
    ],
)
def test_a_key_that_looks_like_a_url_keeps_its_scheme_in_the_name(key: str, path: str) -> None:
    assert relative_path(key, portable=True) == relative_path(key, portable=False) == path
    assert unquote(path) == key


@pytest.mark.parametrize("key", ["python:///etc/passwd", "python://../a", "x://a/../../b"])
def test_a_key_that_looks_like_a_url_does_not_lead_out_of_the_folder(
    tmp_path: Path, key: str
) -> None:
    try:
        path = relative_path(key)
    except UnsafePathError:
        return
    assert os.path.normpath(tmp_path / path).startswith(f"{tmp_path}{os.sep}")


@pytest.mark.parametrize("key", ["a:b.tif", "c:x"])
def test_a_drive_letter_is_refused_for_portable_names(key: str) -> None:
    with pytest.raises(UnsafePathError, match="it begins with a drive letter of Windows"):
        relative_path(key, portable=True)


@pytest.mark.parametrize("portable", [True, False])
@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (LEADING_OUT, "leads out of the folder"),
        (BACKSLASHED_OUT, "leads out of the folder"),
        (FOLDERS_THEMSELVES, r"'\.' is no name"),
        (ABSOLUTE, "it is an absolute path"),
        (ABSOLUTE[-2:], "it is an absolute path on Windows"),
        (EMPTY_PARTS, "it has an empty part"),
        (INVISIBLE, "it contains control characters or invisible ones"),
        ([""], "it is empty"),
        (["x" * 300, "data/" + "é" * 128, "x" * 300 + "/a"], "a part of it is longer than 255"),
        (["/".join(["folder" * 10] * 90)], "it is longer than 3840 bytes"),
        (["/".join("f" * 101)], "it has more than 100 parts"),
        (
            [".stac-gitlab-1.part", "data/.STAC-GitLab", ".stac-gitlab/x"],
            "reserved for partial files",
        ),
    ],
)
def test_a_key_that_cannot_be_a_file_name_is_refused_with_the_reason(
    keys: list[str], why: str, portable: bool
) -> None:
    for key in keys:
        with pytest.raises(UnsafePathError, match=why) as caught:
            relative_path(key, portable=portable)
        text = str(caught.value)
        assert "Download it by hand under a name of your own." in text
        assert text.isprintable(), "what the terminal shows is what the key says"
        assert len(text) < 500


@pytest.mark.parametrize("key", LOOKALIKES)
def test_characters_that_look_like_separators_are_part_of_a_name(tmp_path: Path, key: str) -> None:
    target = contained_path(tmp_path, relative_path(key, portable=False))
    target.write_bytes(b"x")
    assert os.path.realpath(target).startswith(os.path.realpath(tmp_path) + os.sep)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [target]


def test_a_name_of_the_maximum_length_can_be_written(tmp_path: Path) -> None:
    key = "é" * 127 + "x"
    contained_path(tmp_path, relative_path(key)).write_bytes(b"x")
    with pytest.raises(UnsafePathError):
        relative_path(key + "x")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("a.csv", "'a.csv'"),
        ("été", "'été'"),
        ("a\nb", r"'a\nb'"),
        ("é\u202e", r"'\xe9\u202e'"),
        ("\ud800", r"'\ud800'"),
        ("\x1b[2J", r"'\x1b[2J'"),
    ],
)
def test_control_characters_of_a_key_are_escaped(key: str, text: str) -> None:
    assert quoted(key) == text


def test_a_long_key_is_shortened_in_messages() -> None:
    assert len(quoted("x" * 10_000)) == 201


@given(st.text(st.characters(exclude_categories=[]), max_size=60))
@example("a/../b")
@example("a\\..\\..\\b")
@example("C:..")
@example("\ud800/../x")
def test_any_key_stays_inside_the_folder_or_is_refused(key: str) -> None:
    for portable in (True, False):
        try:
            path = relative_path(key, portable=portable)
        except UnsafePathError:
            continue
        for joined in (os.path.join("/out", path), os.path.join("/out", path.replace("\\", "/"))):
            assert os.path.normpath(joined).startswith("/out/")


@given(st.text(st.sampled_from("./\\ aA:\u0301é\u200d~"), min_size=1, max_size=20))
def test_a_file_with_any_allowed_path_is_inside_the_folder(key: str) -> None:
    try:
        path = relative_path(key)
    except UnsafePathError:
        return
    with tempfile.TemporaryDirectory() as folder:
        target = contained_path(Path(folder), path)
        target.write_bytes(b"x")
        inside = os.path.realpath(folder) + os.sep
        assert os.path.realpath(target).startswith(inside)


# -- inside the folder ----------------------------------------------------------------------------


def test_the_folders_of_a_path_are_created(tmp_path: Path) -> None:
    assert contained_path(tmp_path, "a/b/c.csv") == tmp_path / "a" / "b" / "c.csv"
    assert (tmp_path / "a" / "b").is_dir()
    assert contained_path(tmp_path, "a/b/c.csv").parent == tmp_path / "a" / "b"


@posix_only
@pytest.mark.parametrize("key", ["link/a.csv", "link/deep/er/a.csv", "a/../link/x.csv"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path, key: str) -> None:
    folder, outside = tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    with pytest.raises(UnsafePathError, match=r"leads to .*outside.*Nothing is written there"):
        contained_path(folder, key.removeprefix("a/../"))
    assert list(outside.iterdir()) == []


@posix_only
def test_a_link_to_a_missing_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "not yet")
    with pytest.raises(UnsafePathError):
        contained_path(folder, "link/a.csv")
    assert not (tmp_path / "not yet").exists()


@posix_only
def test_a_folder_whose_name_starts_the_same_is_outside(tmp_path: Path) -> None:
    folder, neighbour = tmp_path / "out", tmp_path / "out-side"
    folder.mkdir()
    neighbour.mkdir()
    (folder / "link").symlink_to(neighbour)
    with pytest.raises(UnsafePathError):
        contained_path(folder, "link/a.csv")


@posix_only
def test_links_inside_the_folder_are_followed_and_the_folder_may_be_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "data").mkdir(parents=True)
    (real / "also").symlink_to(real / "data")
    folder = tmp_path / "out"
    folder.symlink_to(real)
    contained_path(folder, "also/a.csv").write_bytes(b"x")
    assert (real / "data" / "a.csv").read_bytes() == b"x"


@posix_only
def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UnsafePathError, match="because a file has its name"):
        contained_path(tmp_path, "loop/a.csv")


def test_a_file_with_the_name_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file")
    for key in ("data/a.csv", "data/deep/a.csv"):
        with pytest.raises(UnsafePathError, match="because a file has its name"):
            contained_path(tmp_path, key)
    assert (tmp_path / "data").read_bytes() == b"a file"


# -- which names are one --------------------------------------------------------------------------

AS_ON_LINUX = FileNaming(ignores_case=False, normalizes=False)
AS_ON_WINDOWS = FileNaming(ignores_case=True, normalizes=False)
AS_ON_A_MAC = FileNaming(ignores_case=True, normalizes=True)
NORMALIZING = FileNaming(ignores_case=False, normalizes=True)


def check(naming: FileNaming, *keys: str) -> None:
    TakenNames(naming).take({key: key for key in keys})


def test_names_that_differ_in_case_collide_if_case_is_ignored() -> None:
    check(AS_ON_LINUX, "data/Case.csv", "data/case.csv")
    for naming in (AS_ON_WINDOWS, AS_ON_A_MAC, STRICTEST_NAMING):
        with pytest.raises(DownloadError, match=r"'data/Case.csv' and 'data/case.csv'"):
            check(naming, "data/Case.csv", "data/case.csv")
        with pytest.raises(DownloadError):
            check(naming, "Straße", "STRASSE")


def test_names_that_differ_in_composition_collide_if_it_is_ignored() -> None:
    composed, decomposed = "\u00e9t\u00e9", unicodedata.normalize("NFD", "\u00e9t\u00e9")
    check(AS_ON_LINUX, composed, decomposed)
    for naming in (NORMALIZING, AS_ON_A_MAC, STRICTEST_NAMING):
        with pytest.raises(DownloadError, match="would be the same file"):
            check(naming, composed, decomposed)
    check(NORMALIZING, "\u00e9", "\u00c9")


def test_a_file_collides_with_a_folder_of_its_name() -> None:
    for keys in (("data", "data/a.csv"), ("data/a.csv", "data"), ("a/b", "a/b/c/d")):
        with pytest.raises(DownloadError, match="one would be the folder of the other") as caught:
            check(AS_ON_LINUX, *keys)
        assert all(repr(key) in str(caught.value) for key in keys)
    check(AS_ON_LINUX, "Data", "data/a.csv")
    with pytest.raises(DownloadError):
        check(AS_ON_WINDOWS, "Data", "data/a.csv")
    check(AS_ON_LINUX, "data.csv", "data/a.csv", "dat")


def test_names_taken_before_collide_but_refused_names_stay_free() -> None:
    taken = TakenNames(AS_ON_WINDOWS)
    taken.take({"one": "a/data.csv", "two": "b.csv"})
    for clash in ("A/Data.csv", "a", "a/data.csv/deeper", "B.csv"):
        with pytest.raises(DownloadError, match="would be the same file"):
            taken.take({"three": clash, "four": "c.csv"})
    taken.take({"five": "c.csv", "six": "a/other.csv"})


def test_every_collision_is_named() -> None:
    with pytest.raises(DownloadError) as caught:
        check(AS_ON_WINDOWS, "a", "A", "b", "B", "c")
    assert "'a' and 'A'; 'b' and 'B'" in str(caught.value)
    assert "'c'" not in str(caught.value)


def test_the_naming_of_a_folder_is_determined_with_a_file(tmp_path: Path) -> None:
    naming = FileNaming.of(tmp_path)
    (tmp_path / "probe").write_bytes(b"")
    assert naming.ignores_case == (tmp_path / "PROBE").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["probe"], "nothing is left of trying"


@pytest.mark.parametrize(
    ("ignores_case", "normalizes"), [(True, False), (False, True), (True,) * 2]
)
def test_the_naming_of_other_systems_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignores_case: bool, normalizes: bool
) -> None:
    def identity(name: str) -> str:
        name = unicodedata.normalize("NFC", name) if normalizes else name
        return name.upper() if ignores_case else name

    def exists(path: str) -> bool:
        head, tail = os.path.split(path)
        return any(identity(tail) == identity(name) for name in os.listdir(head))

    monkeypatch.setattr(os.path, "exists", exists)
    assert FileNaming.of(tmp_path) == FileNaming(ignores_case, normalizes)


@given(st.text(), st.text())
def test_names_that_are_equal_after_casefold_collide_under_the_strictest_naming(
    one: str, other: str
) -> None:
    naming = STRICTEST_NAMING
    assert naming.identity(one) == naming.identity(unicodedata.normalize("NFD", one))
    assert naming.identity(one) == naming.identity(unicodedata.normalize("NFC", one))
    if naming.identity(one) != naming.identity(other):
        assert one != other
