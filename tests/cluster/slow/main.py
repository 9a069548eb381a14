"""Answers after so many seconds, and says which instance it was."""

from __future__ import annotations

import asyncio
import os

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def wait(seconds: float = 0.0) -> str:
    """The instance's name, after ``seconds``; that it waits for them is in its log."""
    print(f"waits for {seconds:g} s", flush=True)
    await asyncio.sleep(seconds)
    return os.environ["TORPOR_INSTANCE"]
