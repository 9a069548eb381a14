"""Ports of this machine: bind one, or say who has it."""

from __future__ import annotations

import socket

import psutil

from torpor.endpoint import Endpoint
from torpor.errors import StartError


def listen(host: str = "127.0.0.1", port: int = 0, *, backlog: int = 1024) -> socket.socket:
    """A listening TCP socket that a child process may inherit; port 0 takes a free one.

    Raises :class:`~torpor.errors.StartError` that names the owner of a taken port.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise StartError(f"port {port} on {host} is taken by {owner(port)}: {error.strerror}") from error
    sock.setblocking(False)
    return sock


def require_free(host: str, port: int) -> None:
    """Raise :class:`~torpor.errors.StartError` unless ``port`` can be bound now."""
    listen(host, port).close()


def address(sock: socket.socket) -> Endpoint:
    """Where ``sock`` listens."""
    host, port = sock.getsockname()[:2]
    return Endpoint(host, port)


def owner(port: int) -> str:
    """Who listens on ``port``, in words: command and pid, as far as this user may see."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS shows other processes' sockets to root alone
        return "another process (run as root to see which)"
    for connection in connections:
        if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
            return _describe(connection.pid)
    return "another process"


def _describe(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    try:
        process = psutil.Process(pid)
        command = " ".join(process.cmdline()[:4]) or process.name()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return f"process {pid}"
    return f"'{command[:120]}' (pid {pid})"
