"""What counts as left over in a store that a scenario has ended with."""

from rowmint.objects.local import LocalDirectoryStore
from rowmint.registry import Identity, Part
from rowmint.store_marks import ASIDE, Mark
from tests.crash.storage import objects


def test_no_mark_counts_as_an_object_though_there_be_several(tmp_path):
    store = LocalDirectoryStore(tmp_path)
    # While a mark is renewed, the older one is still there.
    for part in Part:
        for generation in (36, 37):
            store.put(Mark(part, Identity("0" * 32, generation)).key, b"{}")
    others = [f"{ASIDE}20260101T000000Z/datasets/a", "checkpoints/b", "datasets/c"]
    for key in others:
        store.put(key, b"")
    assert list(objects(store)) == others
