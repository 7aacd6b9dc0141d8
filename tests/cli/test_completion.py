"""The completion scripts, in the shells that are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def script_for(shell: str, folder: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "stac_gitlab", "completion", shell],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    path = folder / f"completion.{shell}"
    path.write_text(done.stdout)
    return path


LINES = [
    ("dow", {"download"}),
    ("auth log", {"login", "logout"}),
    ("auth login --token-", {"--token-file"}),
    ("download --overwrite al", {"always"}),
    ("-q sea", {"search"}),
    ("search x --filter-lang ", {"cql2-text", "cql2-json"}),
    ("completion z", {"zsh"}),
    ("download fil", {"file.json"}),
    ("download --output fil", {"file.json"}),
]


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_bash_completes(line: str, expected: set[str], tmp_path: Path) -> None:
    script = script_for("bash", tmp_path)
    words = ["stac-gitlab", *line.split(" ")]
    # A function of bash itself completes files if there is nothing else.
    program = f"""
source {script}
COMP_WORDS=({" ".join(repr(word) for word in words)})
COMP_CWORD={len(words) - 1}
_stac_gitlab
[ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}"))
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    (tmp_path / "file.json").touch()
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (set(done.stdout.split()), done.stderr) == (expected, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_fish_completes(line: str, expected: set[str], tmp_path: Path) -> None:
    script = script_for("fish", tmp_path)
    (tmp_path / "file.json").touch()
    program = f"source {script}; complete -C 'stac-gitlab {line}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", program],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert {each.split("\t")[0] for each in done.stdout.splitlines()} == expected, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize(("line", "expected"), [each for each in LINES if len(each[1]) == 1])
def test_zsh_completes(line: str, expected: set[str], tmp_path: Path) -> None:
    script = script_for("zsh", tmp_path)
    (tmp_path / "file.json").touch()
    # A terminal of zsh's own, in which the line and a tab are typed.
    program = f"""
zmodload zsh/zpty
zpty z "HOME={tmp_path} PS1=READY zsh -f -i"
zpty -w z "unsetopt beep zle_bracketed_paste; TERM=dumb; source {script}; echo LOADED"
zpty -r -m z out '*LOADED*READY*'
zpty -w -n z 'stac-gitlab {line}'$'\t'
sleep 1
zpty -w -n z $'\x01echo TYPED:\n'
zpty -r -m z out '*TYPED:*READY*'
print -r -- "$out"
"""
    done = subprocess.run(
        ["zsh", "-f", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    [word] = expected
    assert f"{word} " in done.stdout, done.stdout
