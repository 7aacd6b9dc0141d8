"""Libraries that read assets through this package, in a virtual environment of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from real_servers import REQUIRED

VENV = "STAC_GITLAB_LIBRARIES_VENV"
TESTS = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_other_libraries_read_assets() -> None:
    python = Path(os.environ.get(VENV, "none")) / "bin" / "python"
    if not python.exists():
        why = f"{VENV} names no virtual environment: run tests/libraries/install.sh"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    command = [str(python), "-m", "pytest", "-q", "-m", "slow", "-W", "default", "-rs"]
    done = subprocess.run(
        [*command, str(TESTS / "libraries"), str(TESTS / "test_docs.py")],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1]
