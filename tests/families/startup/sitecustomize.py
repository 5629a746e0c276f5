"""Read by every Python process that has this folder on its path: the family of the tests is there as any other is.

It changes what someone who adds a family changes, as these three modules are loaded, and nothing else: the contract,
and the list of families on either side.
"""

import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool

from tests.families.exemplars.contract import FILE, declare

_default_pool = descriptor_pool.Default


class _ChangedPool:
    """Adds files to the default pool, the family's message in the one it belongs to."""

    @staticmethod
    def AddSerializedFile(body: bytes) -> Any:  # noqa: N802 - as the pool names it
        file = descriptor_pb2.FileDescriptorProto.FromString(body)
        if file.name == FILE:
            declare(file)
        return _default_pool().AddSerializedFile(file.SerializeToString())


def _change_contract(module: ModuleType, load: Callable[[ModuleType], None]) -> None:
    descriptor_pool.Default = _ChangedPool  # type: ignore[assignment,misc]
    try:
        load(module)
    finally:
        descriptor_pool.Default = _default_pool


def _add_synthesizer(module: ModuleType, load: Callable[[ModuleType], None]) -> None:
    load(module)
    from tests.families.exemplars.synthesizer import SYNTHESIZER

    module.FAMILIES = (*module.FAMILIES, SYNTHESIZER)  # type: ignore[attr-defined]


def _add_family(module: ModuleType, load: Callable[[ModuleType], None]) -> None:
    load(module)
    from tests.families.exemplars.family import EXEMPLARS

    module.FAMILIES = (*module.FAMILIES, EXEMPLARS)  # type: ignore[attr-defined]


_CHANGES: dict[str, Callable[[ModuleType, Callable[[ModuleType], None]], None]] = {
    "rowmint.v1.training_job_pb2": _change_contract,
    "rowmint.synthesizer.family": _add_synthesizer,
    "trainer_service.fitting.families": _add_family,
}


class _Finder:
    """Finds modules as ever; those of `_CHANGES` are loaded with their change."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name not in _CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(_changed, name, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


def _changed(name: str, load: Callable[[ModuleType], None], module: ModuleType) -> None:
    _CHANGES[name](module, load)


sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]
