"""Executes a notebook: JSON on the standard input, and the executed notebook on the output.

It runs in the environment that `tests/servers/install.sh` makes. What a cell asks for with
`getpass` or `input` is answered with the argument of this program.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import nbformat
from nbclient import NotebookClient


async def answer(client: NotebookClient, text: str) -> None:
    """Answer all prompts of the kernel."""
    while True:
        request = await client.kc.stdin_channel.get_msg()
        assert request["msg_type"] == "input_request"
        client.kc.input(text)


def main() -> None:
    """Execute the notebook."""
    tasks = []

    async def start(**_: Any) -> None:
        client.kc.allow_stdin = True
        tasks.append(asyncio.ensure_future(answer(client, sys.argv[1])))

    async def end(**_: Any) -> None:
        for task in tasks:
            task.cancel()

    notebook = nbformat.reads(sys.stdin.read(), as_version=4)
    client = NotebookClient(
        notebook,
        timeout=100,
        kernel_name="python3",
        allow_errors=True,
        record_timing=False,
        on_notebook_start=start if len(sys.argv) > 1 else None,
        on_notebook_complete=end,
    )
    client.execute()
    sys.stdout.write(nbformat.writes(notebook))


if __name__ == "__main__":
    main()
