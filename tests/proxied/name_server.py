"""A name server at 127.0.0.1:53 of its network: name_server.py FILE.

The file has lines `address name`, is read again for each question and may be changed at any time. Answers may be kept
for ten minutes, as Docker's own server says of its answers (RFC 1035 has the format).
"""

import socket
import struct
import sys
from pathlib import Path

_ADDRESS, _INTERNET, _NO_SUCH_NAME = 1, 1, 3
_KEEP_SECONDS = 600


def requested(message: bytes) -> tuple[str, int, int]:
    """Return the requested name, the kind of record, and where the question ends."""
    labels, at = [], 12
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    (kind,) = struct.unpack_from("!H", message, at + 1)
    return ".".join(labels).lower(), kind, at + 5


def answer(message: bytes, known: dict[str, list[str]]) -> bytes:
    name, kind, end = requested(message)
    addresses = known.get(name, []) if kind == _ADDRESS else []
    flags = 0x8580 | (0 if name in known else _NO_SUCH_NAME)  # an answer, authoritative, recursion as requested
    records = [
        struct.pack("!HHHIH", 0xC00C, _ADDRESS, _INTERNET, _KEEP_SECONDS, 4) + socket.inet_aton(address)
        for address in addresses
    ]
    header = message[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
    return header + message[12:end] + b"".join(records)


def main(file: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        print("ready", flush=True)  # noqa: T201 - who started it waits for this
        while True:
            message, client = server.recvfrom(512)
            known: dict[str, list[str]] = {}
            for line in Path(file).read_text().splitlines():
                address, name = line.split()
                known.setdefault(name, []).append(address)
            server.sendto(answer(message, known), client)


if __name__ == "__main__":
    main(*sys.argv[1:])
