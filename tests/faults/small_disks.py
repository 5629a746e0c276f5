"""Small disks for a service: folders that are file systems of their own, in a namespace that only it lives in.

Linux gives a user a namespace in which he may mount, so that neither root nor a real disk is needed. The mounts go with
the last process that lives in it.
"""

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_BALLAST = "ballast"
_CHUNK = bytes(64 * 1024)


class SmallDisks:
    """Folders of a home, each a small disk to the service that is started by `interpreter`.

    Args:
        home: Home folder of the services.
        sizes: Bytes of each disk, by the name of its folder in `home`.
    """

    def __init__(self, home: Path, sizes: Mapping[str, int]) -> None:
        allowed = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], check=False)
        if allowed.returncode != 0:
            raise PermissionError(
                "this user may not make a namespace, which the tests of full disks need; allow it (sysctl"
                " kernel.apparmor_restrict_unprivileged_userns=0; in a container, --security-opt seccomp=unconfined)"
            )
        self._home = home
        self._pid = 0
        mounts = []
        for name, size in sizes.items():
            (home / name).mkdir(parents=True)
            mounts.append(f"mount -t tmpfs -o size={size} none {shlex.quote(str(home / name))}")
        inside = " && ".join([*mounts, f'exec {shlex.quote(sys.executable)} "$@"'])
        command = f'exec unshare --user --map-root-user --mount sh -c {shlex.quote(inside)} sh "$@"'
        self.interpreter = self._script("with-small-disks", command)

    def entered_by(self, pid: int) -> None:
        """Say which process lives in the namespace."""
        self._pid = pid

    @property
    def interpreter_beside(self) -> str:
        """Interpreter of another service that sees the same disks."""
        entered = f"exec nsenter --target {self._pid} --user --preserve-credentials --mount"
        return self._script("beside", f'{entered} {shlex.quote(sys.executable)} "$@"')

    def folder(self, name: str) -> Path:
        """Return the folder as the service sees it."""
        return Path(f"/proc/{self._pid}/root{self._home}/{name}")

    @contextlib.contextmanager
    def full(self, name: str, left: int = 0) -> Iterator[None]:
        """Fill a disk but for `left` bytes; make room again at the end."""
        ballast = self.folder(name) / _BALLAST
        try:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(_CHUNK):
                    pass
            with ballast.open("r+b") as file:
                file.truncate(ballast.stat().st_size - left)
            yield
        finally:
            ballast.unlink()

    @contextlib.contextmanager
    def read_only(self, *names: str) -> Iterator[None]:
        """Let disks refuse every write, as they do after a fault of the hardware; undone at the end."""
        self._remount("ro", names)
        try:
            yield
        finally:
            self._remount("rw", names)

    def _remount(self, option: str, names: tuple[str, ...]) -> None:
        enter = ["nsenter", "--target", str(self._pid), "--user", "--preserve-credentials", "--mount"]
        for name in names:
            subprocess.run([*enter, "mount", "-o", f"remount,{option}", str(self._home / name)], check=True)

    def _script(self, name: str, command: str) -> str:
        path = self._home / name
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o755)
        return str(path)
