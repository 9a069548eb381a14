"""Greets people over HTTP. A plain FastAPI app is a function as it stands."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import BaseModel


class Language(StrEnum):
    """The languages it greets in."""

    de = "de"
    en = "en"
    fr = "fr"
    sw = "sw"


HELLO = {Language.de: "Guten Tag", Language.en: "Hello", Language.fr: "Bonjour", Language.sw: "Jambo"}


class Greeting(BaseModel):
    """What it answers."""

    greeting: str
    language: Language


app = FastAPI(title="Greeter")


@app.get("/")
async def greet(
    name: Annotated[str, Query(min_length=1, max_length=80)] = "world", language: Language = Language.en
) -> Greeting:
    """Greet `name` in `language`."""
    return Greeting(greeting=f"{HELLO[language]}, {name}!", language=language)


@app.get("/languages")
async def languages() -> list[Language]:
    """The languages it greets in."""
    return list(Language)
