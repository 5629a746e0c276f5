"""Pages of lists that end by bytes."""

from google.protobuf.wrappers_pb2 import StringValue

from rowmint.registry.paging import PageRequest
from rowmint.rpc.message_page import MessagePage


def listed(sizes: list[int], most: int, page_size: int = 100, spare: int = 0) -> list[list[int]]:
    """Return the sizes of the texts on each page."""
    pages: list[list[int]] = []
    token = ""
    while not pages or token:
        request = PageRequest.parse("texts", page_size, token, (int,))
        start = 0 if request.after is None else int(request.after[0]) + 1
        read: list[int] = []

        def rows(start: int = start, read: list[int] = read):
            for number in range(start, len(sizes)):
                read.append(number)
                yield (number,), sizes[number]

        page: MessagePage[int, StringValue] = MessagePage(lambda size: StringValue(value="x" * size), most, spare)
        found = request.page(rows(), page.fits)
        pages.append([len(message.value) for message in page.messages])
        assert list(found.items) == pages[-1]
        assert len(read) <= len(pages[-1]) + 1  # no more is read than is needed
        token = found.next_page_token
    return pages


def test_a_page_ends_before_the_message_that_passes_its_bytes():
    # Each message has two bytes more than its text.
    assert listed([48, 48, 48], 100) == [[48, 48], [48]]
    assert listed([48, 49, 48], 100) == [[48], [49], [48]]
    assert listed([48, 48], 100, spare=1) == [[48], [48]]


def test_a_message_larger_than_a_page_has_one_of_its_own():
    assert listed([10, 200, 10, 10], 100) == [[10], [200], [10, 10]]
    assert listed([200], 100) == [[200]]


def test_a_page_has_no_more_than_its_size():
    assert listed([1] * 5, 100, page_size=2) == [[1, 1], [1, 1], [1]]
    assert listed([], 100) == [[]]
