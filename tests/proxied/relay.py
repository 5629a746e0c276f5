"""Carries connections from one network into another: relay.py DESCRIPTOR HOST PORT.

The descriptor is that of a listening socket made in the first network, and this process lives in the second. It needs
the standard library only, so that it starts in no time.
"""

import contextlib
import socket
import sys
import threading


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Carry one direction until it ends. Who reads slowly is written slowly: what waits, waits in the sockets."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def carry(outer: socket.socket, target: tuple[str, int]) -> None:
    with outer:
        try:
            inner = socket.create_connection(target)
        except OSError:
            return
        with inner:
            back = threading.Thread(target=pump, args=(inner, outer))
            back.start()
            pump(outer, inner)
            back.join()


def main(descriptor: str, host: str, port: str) -> None:
    listener = socket.socket(fileno=int(descriptor))
    while True:
        outer, _ = listener.accept()
        threading.Thread(target=carry, args=(outer, (host, int(port))), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
