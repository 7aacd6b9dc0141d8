"""The pictures of the first page, made again: `python docs/pictures.py`.

`terminal.svg` shows what the commands print on a terminal. `notebook.png` shows outputs of the
tutorial, and is made only where chromium is installed.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from xml.sax.saxutils import escape

from stac_gitlab.testing import SharingHubServer, sample_projects

DOCS = Path(__file__).parent
HUB = "https://hub.example.org"
ITEM = f"{HUB}/api/stac/collections/dataset/items/alpine/lakes/lake-temperature"
COMMANDS = (f"ls {HUB}", f"download {ITEM} -o lakes", "verify lakes")
COLUMNS, LINE, CHARACTER = 112, 20, 8.43
_BOLD = re.compile(r"\x1b\[1m(.*?)\x1b\[0m")
# What differs between two runs.
_RATE = re.compile(r"\[[\d:<, ?]+, +[\d.?]+[kM]?B/s\]")


def terminal_lines() -> list[str]:
    """Run the commands on a terminal; return its lines, with bold parts in control characters."""
    lines: list[str] = []
    with SharingHubServer(sample_projects()) as hub, tempfile.TemporaryDirectory() as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
            "STAC_GITLAB_TOKEN": hub.token,
            "XDG_CONFIG_HOME": folder,
        }
        for command in COMMANDS:
            arguments = command.replace(HUB, hub.url).split()
            shown = _run(["-m", "stac_gitlab", *arguments], folder, environment)
            shown = _RATE.sub("[00:00<00:00, 1.00MB/s]", shown.replace(hub.url, HUB))
            lines += [
                "\x1b[1m$\x1b[0m stac-gitlab " + command.replace(f" {ITEM}", f" \\\n    {ITEM}")
            ]
            # A bar is drawn again and again on its line.
            lines += [line.rpartition("\r")[2] for line in shown.strip().split("\r\n")]
            lines += [""]
    return "\n".join(lines).strip().split("\n")


def _run(arguments: list[str], folder: str, environment: dict[str, str]) -> str:
    """Return what a terminal of `COLUMNS` columns gets."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    command = [sys.executable, *arguments]
    running = subprocess.Popen(
        command, stdin=end, stdout=end, stderr=end, cwd=folder, env=environment
    )
    os.close(end)
    output = b""
    # The end of a terminal is an error on Linux.
    try:
        while more := os.read(terminal, 65536):
            output += more
    except OSError:
        pass
    os.close(terminal)
    running.wait()
    return output.decode()


def svg_of(lines: list[str]) -> str:
    """Return lines of a terminal as SVG."""
    longest = max(len(_BOLD.sub(r"\1", line)) for line in lines)
    width, height = longest * CHARACTER + 40, len(lines) * LINE + 40
    texts = "\n".join(
        f'<text x="20" y="{35 + number * LINE}" xml:space="preserve">'
        + _BOLD.sub(r'<tspan class="bold">\1</tspan>', escape(line))
        + "</text>"
        for number, line in enumerate(lines)
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}">
<title>The command stac-gitlab in a terminal</title>
<style>
text {{ font: 14px monospace; fill: #c9d1d9 }}
.bold {{ fill: #fff; font-weight: bold }}
</style>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
{texts}
</svg>
"""


def notebook_page() -> str:
    """Return the preview, the bar and the report of the tutorial as a page."""
    notebook = json.loads((DOCS / "tutorial.ipynb").read_text(encoding="utf-8"))
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if "preview(item)" in source or "report = " in source:
            outputs = ("".join(output["data"]["text/html"]) for output in cell["outputs"])
            parts += [f"<pre>{escape(source)}</pre>", *outputs]
    style = "body{font:15px sans-serif;margin:20px}pre{background:#f3f4f6;padding:12px}"
    return f"<!doctype html><meta charset=utf-8><style>{style}</style>{''.join(parts)}"


def main() -> None:
    """Write the pictures."""
    (DOCS / "terminal.svg").write_text(svg_of(terminal_lines()), encoding="utf-8")
    browser = shutil.which("chromium")
    if browser is None:
        print("notebook.png is as it was: chromium is not installed.")
        return
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(notebook_page(), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=900,670"]
        target = [f"--user-data-dir={folder}", f"--screenshot={DOCS / 'notebook.png'}"]
        subprocess.run([browser, *options, *target, page.as_uri()], check=True, timeout=120)


if __name__ == "__main__":
    main()
