from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torpor.providers.process.output import MAX_LINE_BYTES, LineSplitter


@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=20)), st.integers(1, 9)
)
def test_lines_come_out_whole_however_they_are_cut(lines: list[str], size: int) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    splitter, got = LineSplitter(), list[str]()
    for at in range(0, len(data), size):
        got += splitter.feed(data[at : at + size])
    assert got + splitter.end() == lines


def test_a_line_without_an_end_comes_at_the_end() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"a\r\nb") == ["a"]
    assert splitter.end() == ["b"]
    assert splitter.end() == []


def test_a_line_that_is_too_long_comes_in_pieces() -> None:
    splitter = LineSplitter()
    data = b"x" * (2 * MAX_LINE_BYTES + 10)
    pieces = splitter.feed(data + b"\n")
    assert [len(piece) for piece in pieces] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 10]
    got = [piece for at in range(0, len(data), 4096) for piece in splitter.feed(data[at : at + 4096])]
    assert max(map(len, got)) == MAX_LINE_BYTES
    assert len("".join([*got, *splitter.end()])) == len(data)


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert LineSplitter().feed(b"\xff\n") == ["\ufffd"]
