"""Parts of messages in bytes, in protobuf's wire format: what many messages have in common is written and read once.

Messages one after another are the message that has the fields of all.
"""

_SHORT = 0x80  # below, a number takes one byte
_ONE_BYTE = [bytes([number]) for number in range(_SHORT)]


def varint(number: int) -> bytes:
    """Return a number, 0 or more, as it is written."""
    if number < _SHORT:
        return _ONE_BYTE[number]
    found = bytearray()
    while number >= _SHORT:
        found.append(number % _SHORT | _SHORT)
        number //= _SHORT
    found.append(number)
    return bytes(found)


def field(tag: bytes, content: bytes) -> bytes:
    """Return a field that has a length: a message, a text, bytes."""
    return b"".join((tag, varint(len(content)), content))


def after_varint(data: bytes, start: int) -> int:
    """Return where the number that starts there is over."""
    while data[start] >= _SHORT:
        start += 1
    return start + 1


def short_fields(data: bytes, tag: int, start: int = 0) -> list[bytes]:
    """Return consecutive fields of a message, each with its tag and its length.

    Args:
        data: The message.
        tag: Tag of a field that has a length; of one byte.
        start: Where the first of them starts.

    Returns:
        Those up to the first that is another's, or whose content has 128 bytes or more.
    """
    found, end = [], len(data)
    while start < end and data[start] == tag and (length := data[start + 1]) < _SHORT:
        stop = start + 2 + length
        found.append(data[start:stop])
        start = stop
    return found
