from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.providers.process import wire


@given(st.lists(st.text(max_size=50), min_size=1, max_size=10), st.integers(1, 40))
def test_frames_come_out_as_they_went_in_however_they_are_cut(texts: list[str], size: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbox = wire.Inbox(theirs)
        stream = b"".join(wire.pack({"text": text}) for text in texts)
        got: list[str] = []
        for at in range(0, len(stream), size):
            ours.sendall(stream[at : at + size])
            received = inbox.receive()
            assert received is not None
            got.extend(message["text"] for message, _ in received)
    assert got == texts


def test_descriptors_travel_with_their_frames_and_nothing_is_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbox = wire.Inbox(theirs)
        assert inbox.receive() == []
        pipes = [os.pipe() for _ in range(3)]
        wire.send(ours, {"n": 1}, [pipes[0][1], pipes[1][1]])
        wire.send(ours, {"n": 2})
        wire.send(ours, {"n": 3}, [pipes[2][1]])
        frames: list[tuple[wire.Message, list[int]]] = []
        while len(frames) < 3:
            frames.extend(inbox.receive() or ())
        assert [(message["n"], len(descriptors)) for message, descriptors in frames] == [
            (1, 2),
            (2, 0),
            (3, 1),
        ]
        received = [descriptor for _, descriptors in frames for descriptor in descriptors]
        assert not any(map(os.get_inheritable, received))
        for (read, write), descriptor in zip(pipes, received, strict=True):
            os.write(descriptor, b"x")
            assert os.read(read, 1) == b"x"
            for each in (read, write, descriptor):
                os.close(each)
        ours.close()
        assert inbox.receive() is None


def test_descriptors_whose_frame_never_came_are_closed() -> None:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    with ours, theirs:
        inbox = wire.Inbox(theirs)
        wire.send_some(ours, wire.pack({"n": 1}, 1)[:5], [write])
        os.close(write)
        assert inbox.receive() == []
        inbox.close()
    assert os.read(read, 1) == b""
    os.close(read)


def test_what_is_over_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        wire.pack({}, wire.MAX_DESCRIPTORS + 1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\xff" * 8)
        with pytest.raises(ValueError, match="over the limit"):
            wire.Inbox(theirs).receive()
