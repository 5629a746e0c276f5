"""Who may read what a trainer keeps in folders: its own user, and of published models a group, if one is named.

What a sampler reads is the registry's file of models and their store. Data, whose profiles hold real values, and
temporary files are its own user's alone.
"""

import grp
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from rowmint.errors import InvalidFieldError
from rowmint.objects import PRIVATE, FileAccess
from rowmint.objects.files import make_folder
from trainer_service.settings import TrainerSettings

_log = structlog.get_logger(__name__)

_SEARCH = 0o010  # a group may pass through a folder to those it may read, but not list it


def models_access(settings: TrainerSettings) -> FileAccess:
    """Return who may read published models.

    Raises:
        InvalidFieldError: There is no such group, or this user is not in it.
    """
    name = settings.models_group
    if not name:
        return PRIVATE
    try:
        group = int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidFieldError("models_group", f"there is no group {name!r} on this machine") from None
    if os.geteuid() != 0 and group not in {os.getegid(), *os.getgroups()}:
        raise InvalidFieldError("models_group", f"this user is not in the group {name!r}: add it, and start again")
    return FileAccess(group)


def prepare_home(settings: TrainerSettings) -> None:
    """Make the folders of the embedded form, or let those that are there be read by no more than they should be.

    To be called before anything is written. Only what is below the home and this user's own is changed.

    Raises:
        InvalidFieldError: See `models_access`.
        OSError: A folder cannot be made.
    """
    shared = models_access(settings)
    home = settings.home.absolute()
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)  # as the umask says: it is not for this code alone
        make_folder(home)
    changed = 0
    if shared.group is not None and not (settings.registry and settings.model_store):
        changed += _allow(home, shared, _mode(home) | _SEARCH)
    folders = {
        "scratch": PRIVATE,
        **({} if settings.data_store else {"data": PRIVATE}),
        **({} if settings.model_store else {"models": shared}),
        **({} if settings.registry else {"registry": shared}),
    }
    for name, access in folders.items():
        make_folder(home / name, access)
        changed += _allow(home / name, access, access.folder_mode)
    if "registry" in folders:
        for name, access in (("data.db", PRIVATE), ("models.db", shared)):
            file = home / "registry" / name
            file.touch(mode=access.file_mode)
            # Logs of a process that was killed have the mode of then.
            changed += sum(_allow(path, access, access.file_mode) for path in file.parent.glob(f"{name}*"))
    if "models" in folders and shared.group is not None:
        changed += sum(_allow(*one) for one in _stored(home / "models", shared))
    if changed:
        _log.info("changed who may read files of the home", files=changed)


def _stored(root: Path, access: FileAccess) -> Iterator[tuple[Path, FileAccess, int]]:
    for folder, _, names in os.walk(root):
        yield Path(folder), access, access.folder_mode
        yield from ((Path(folder, name), access, access.file_mode) for name in _visible(names))


def _visible(names: Iterable[str]) -> Iterator[str]:
    """Yield the names of objects; others belong to writers at work."""
    return (name for name in names if not name.startswith("."))


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _allow(path: Path, access: FileAccess, mode: int) -> bool:
    """Give a file or folder a group and mode; return whether that was needed. Another user's, and links, stay."""
    try:
        found = path.lstat()
    except FileNotFoundError:  # another process has deleted it meanwhile
        return False
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
        return False
    right = stat.S_IMODE(found.st_mode) == mode and (access.group is None or found.st_gid == access.group)
    if not right:
        access.apply(path, mode)
    return not right
