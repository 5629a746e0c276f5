"""Whether the models' store belongs to the registry: with another one's, every model would look damaged."""

from collections.abc import Callable

from rowmint.errors import UnavailableError
from rowmint.objects import ObjectStore
from rowmint.registry import Identity
from rowmint.store_marks import read_marks


class StoreCheck:
    """Raises until the store was seen to be the registry's own, and from then on costs nothing. Thread-safe.

    Where either says nothing about itself, as one that no trainer of this release has served yet, nothing is required;
    nor where one cannot be read now, as whatever needs it finds that out.

    Args:
        identity: Returns which registry it is, or None.
        store: The models' store.
    """

    def __init__(self, identity: Callable[[], Identity | None], store: ObjectStore) -> None:
        self._identity = identity
        self._store = store
        self._passed = False

    def __call__(self) -> None:
        """Return if the store may be read.

        Raises:
            UnavailableError: It is marked as another registry's.
        """
        if self._passed:
            return
        try:
            marks = read_marks(self._store)
            own = self._identity()
        except UnavailableError:
            return
        others = sorted({mark.identity.uid for mark in marks if own is not None and mark.identity.uid != own.uid})
        if others:
            raise UnavailableError(
                f"the models' store belongs to another registry ({others[0]}): set ROWMINT_MODELS_REGISTRY and"
                " ROWMINT_MODEL_STORE to a registry and its store",
                retry_after=1.0,
            )
        self._passed = own is not None and bool(marks)
