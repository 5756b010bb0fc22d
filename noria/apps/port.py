"""Listening sockets of the data plane: one for a gateway on its own, or a port that several workers share."""

from __future__ import annotations

import socket

from noria.errors import Invalid, Unavailable

BACKLOG = 2048


def listen(host: str, port: int, shared: bool = False) -> socket.socket:
    """A listening socket (port 0 takes a free one); raises Invalid for no address, Unavailable for a taken port.

    With `shared` other sockets may listen there too, of the same user and shared as well: the kernel spreads new
    connections over them (SO_REUSEPORT).
    """
    found = _bound(host, port, shared)
    # Listening at once lets a taken port show here, and early clients wait instead of being refused.
    found.listen(BACKLOG)
    return found


def reserve(host: str, port: int) -> socket.socket:
    """A socket that keeps a port for workers which listen there with `shared`; raises as `listen`.

    It never listens, so that no connection waits in it. Nobody but a worker can take the port, even when all of them
    are dead: what is asked of the kernel here is exclusive, and opened to other sockets only once it is ours.
    """
    found = _bound(host, port, shared=False)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return found


def url_of(listener: socket.socket) -> str:
    """The http address of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bound(host: str, port: int, shared: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise Invalid(f"'{host}:{port}' is not an address of this machine", "check --host and --port") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(address)
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise Unavailable(f"cannot listen on {host}:{port}: {reason}", "choose another port with --port") from error
    return found
