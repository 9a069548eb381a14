"""The portable part of dying with the parent; the kernel's part is tested on whole trees of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def test_a_process_ends_when_its_lifeline_does() -> None:
    read, write = os.pipe()
    code = """
        import asyncio, sys
        from torpor.providers.process.lifeline import watch

        async def main():
            watch(int(sys.argv[1]))
            print("watching", flush=True)
            await asyncio.Event().wait()

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(read)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[read]) as process:
        try:
            os.close(read)
            assert process.stdout is not None
            assert process.stdout.readline() == b"watching\n"
            assert process.poll() is None
            os.close(write)
            assert process.wait(timeout=60) == 1
        finally:
            process.kill()
