"""Who may read what the services keep in folders: the same whatever the umask, on a new home and on an old one."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest

from rowmint.errors import InvalidFieldError
from rowmint.names import ModelName
from rowmint.objects import FileAccess, LocalDirectoryStore
from rowmint.registry import migrate, open_registry
from tests.conformance.registries import ready
from trainer_service import home
from trainer_service.home import models_access, prepare_home
from trainer_service.jobs.scratch import ScratchFolder
from trainer_service.jobs.stores import open_stores
from trainer_service.object_keys import table_key, version_keys
from trainer_service.settings import TrainerSettings
from trainer_service.store_claims import claim_stores

UID = "0" * 32
# As root a process may give files to any group; otherwise the one it has will do.
GROUP = 54_321 if os.geteuid() == 0 else os.getegid()
MANIFEST, WEIGHTS = version_keys(ModelName("p", "m"), UID, 1)
# Modes without a group, and with one.
MODES = {
    "": (0o700, 0o710),
    "data": (0o700, 0o700),
    "data/datasets": (0o700, 0o700),
    f"data/{table_key(UID, 1)}": (0o600, 0o600),
    "models": (0o700, 0o2750),
    "models/p": (0o700, 0o2750),
    f"models/p/m/{UID}-1": (0o700, 0o2750),
    f"models/{MANIFEST}": (0o600, 0o640),
    f"models/{WEIGHTS}": (0o600, 0o640),
    "registry": (0o700, 0o2750),
    "registry/data.db": (0o600, 0o600),
    "registry/data.db-wal": (0o600, 0o600),
    "registry/data.db-shm": (0o600, 0o600),
    "registry/models.db": (0o600, 0o640),
    "registry/models.db-wal": (0o600, 0o640),
    "registry/models.db-shm": (0o600, 0o640),
    "scratch": (0o700, 0o700),
    "scratch/worker": (0o700, 0o700),
}
SHARED = {name for name, (alone, grouped) in MODES.items() if alone != grouped}


@pytest.fixture(params=[0, 0o022, 0o077], ids=oct)
def _umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def settings(home: Path, group: str) -> TrainerSettings:
    return TrainerSettings(home=home, models_group=group)


def use(found: TrainerSettings) -> dict[str, os.stat_result]:
    """Do what a trainer and its worker do with a home, and return what is there then, by path."""
    home = found.home
    prepare_home(found)
    registry, stores = open_registry(found.registry_url), open_stores(found)
    try:
        migrate(registry.engine)
        claim_stores(registry, stores)
        if not list(registry.datasets.list("p").items):
            ready(registry)
        stores.data.put(table_key(UID, 1), b"table")
        for key in (MANIFEST, WEIGHTS):
            stores.models.put(key, b"model")
        with ScratchFolder(found.scratch) as scratch:
            there = {str(path.relative_to(home)): path.stat() for path in (home, *home.rglob("*"))}
            return {"" if name == "." else name.replace(scratch.path.name, "worker"): it for name, it in there.items()}
    finally:
        registry.close()


def modes(there: dict[str, os.stat_result], names: Iterable[str]) -> dict[str, str]:
    return {name: oct(stat.S_IMODE(there[name].st_mode)) for name in names}


@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize("group", ["", str(GROUP)], ids=["alone", "group"])
def test_every_path_of_a_new_home_has_its_mode(tmp_path, group):
    there = use(settings(tmp_path / "made" / "home", group))
    assert modes(there, MODES) == {name: oct(pair[bool(group)]) for name, pair in MODES.items()}
    # Nothing is there that others can read, whatever it is.
    assert [name for name, it in there.items() if it.st_mode & 0o007] == []
    if os.geteuid() == 0:
        shown = {name for name in MODES if there[name].st_gid == GROUP and there[name].st_mode & 0o070}
        assert shown == (SHARED if group else set())


@pytest.mark.usefixtures("_umask")
@pytest.mark.parametrize("group", ["", str(GROUP)], ids=["alone", "group"])
def test_a_home_of_earlier_releases_is_closed_to_others(tmp_path, group):
    folder = tmp_path / "home"
    use(settings(folder, ""))
    for path in (folder, *folder.rglob("*")):  # as they made it
        path.chmod(0o755 if path.is_dir() else 0o644)
    there = use(settings(folder, group))
    # What is below `data`, and without a group below `models`, cannot be reached.
    changed = {name for name in MODES if name and not name.startswith("data/")}
    changed -= set() if group else {name for name in changed if name.startswith("models/")}
    assert modes(there, changed) == {name: oct(MODES[name][bool(group)]) for name in changed}


def test_a_home_that_is_there_keeps_its_own_mode(tmp_path):
    tmp_path.chmod(0o755)
    use(settings(tmp_path, ""))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_what_is_deleted_meanwhile_holds_up_no_start(tmp_path, monkeypatch):
    use(settings(tmp_path, ""))
    allow = home._allow

    def deleted(path, *more):
        if path.name == Path(WEIGHTS).name:
            path.unlink()
        return allow(path, *more)

    monkeypatch.setattr(home, "_allow", deleted)
    prepare_home(settings(tmp_path, str(GROUP)))
    assert not (tmp_path / "models" / WEIGHTS).exists()


def test_what_is_elsewhere_is_not_changed(tmp_path):
    (tmp_path / "models").mkdir(mode=0o755)
    (tmp_path / "models").chmod(0o755)
    (tmp_path / "models" / "theirs").write_bytes(b"x")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models").symlink_to(tmp_path / "models")
    stores = {"data_store": f"file://{tmp_path}/data", "model_store": f"file://{tmp_path}/models"}
    found = TrainerSettings(
        home=tmp_path / "home", registry=f"sqlite:///{tmp_path}/r", models_group=str(GROUP), **stores
    )
    prepare_home(found)
    open_stores(found).models.put(MANIFEST, b"x")
    assert stat.S_IMODE((tmp_path / "models").stat().st_mode) == 0o755
    assert (tmp_path / "models" / "theirs").stat().st_gid == os.getegid()
    assert stat.S_IMODE((tmp_path / "models" / MANIFEST).stat().st_mode) == 0o640
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["models", "scratch"]


@pytest.mark.parametrize("name", ["data", "models"])
def test_what_a_link_in_the_home_points_at_is_not_changed(tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere").chmod(0o755)
    link = tmp_path / "home" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    prepare_home(settings(tmp_path / "home", str(GROUP)))
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755


def test_a_moved_object_keeps_its_mode(tmp_path):
    store = LocalDirectoryStore(tmp_path / "s", FileAccess(GROUP))
    store.put("a", b"x")
    store.move("a", "aside/a")
    assert [oct(stat.S_IMODE((tmp_path / "s" / name).stat().st_mode)) for name in ("aside", "aside/a")] == [
        "0o2750",
        "0o640",
    ]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("no-such-group", "there is no group 'no-such-group' on this machine"),
        ("54399", "this user is not in the group '54399': add it, and start again"),
    ],
)
def test_a_group_that_cannot_be_given_is_refused(tmp_path, monkeypatch, group, message):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InvalidFieldError, match=message):
        models_access(settings(tmp_path, group))


def test_a_group_has_a_name_or_a_number(tmp_path, monkeypatch):
    monkeypatch.setattr("grp.getgrnam", lambda name: type("Group", (), {"gr_gid": {"readers": GROUP}[name]}))
    assert models_access(settings(tmp_path, "readers")) == models_access(settings(tmp_path, str(GROUP)))
    assert models_access(settings(tmp_path, "")) == FileAccess()
