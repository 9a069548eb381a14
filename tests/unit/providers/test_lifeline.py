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


def test_a_command_is_not_run_for_a_parent_that_is_gone() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    command = [sys.executable, "-m", "torpor.providers.process.lifeline"]
    result = subprocess.run([*command, str(gone.pid), "/bin/echo", "ran"], capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (1, b"")
    result = subprocess.run(
        [*command, str(os.getpid()), "/bin/echo", "ran"], capture_output=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, b"ran\n")
