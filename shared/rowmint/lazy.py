"""An attribute that is computed when it is first read."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801  # written as a decorator
    """A method read as an attribute: computed with the first read, then kept in the instance's `__dict__`.

    As `functools.cached_property` of Python 3.12. That of 3.11 holds one lock for all instances of the class while it
    computes, so that a large model's tables would stop every other model. Two threads that read at once may both
    compute, and get the same object: the first one kept.

    Args:
        method: Computes the value, a pure function of the instance.
    """

    def __init__(self, method: Callable[[Any], T]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        value: T = self._method(instance)
        found: T = instance.__dict__.setdefault(self._name, value)
        return found
