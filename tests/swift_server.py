"""OpenStack Swift with its S3 interface: a real S3 service of the tests' own, on loopback, ended by pid.

It checks signatures, keeps multipart uploads and answers over the wire. It runs from an environment of its own,
`.venv-swift`, which `make .venv-swift/.ready` builds.
"""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import obstore
from obstore.store import S3Store

from tests.acceptance.processes import ROOT, free_port
from tests.waiting import PATIENCE, wait_until

ENVIRONMENT = ROOT / ".venv-swift"
REGION = "us-east-1"
LISTED_AT_ONCE = 20
"""Keys in one answer to a listing; a cloud's service gives a thousand."""
ACCESS_KEY = "test:tester"
_MINUTE = timedelta(minutes=1)

# A node is never given up and a listing never lags, however slow the machine: the only node is the right one, and
# what a listing misses in time it would miss until a daemon that does not run here repairs it.
_PATIENT = """
conn_timeout = 30
node_timeout = 60
"""

_STORAGE = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}/etc
devices = {folder}/devices
mount_check = false
disable_fallocate = true
workers = 0
log_address = {folder}/no-syslog
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
container_update_timeout = 60
""".rstrip()

_PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}/etc
workers = 0
log_address = {folder}/no-syslog
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck listing_formats s3api tempauth copy slo versioned_writes proxy-server
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = {region}
max_bucket_listing = {listed}
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:versioned_writes]
use = egg:swift#versioned_writes
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
error_suppression_limit = 1000000
recoverable_node_timeout = 60
""".rstrip()

_CLUSTER = """
[swift-hash]
swift_hash_path_prefix = {prefix}
swift_hash_path_suffix = {suffix}
[storage-policy:0]
name = default
default = yes
"""

_MODULES = {"account": "account", "container": "container", "object": "obj", "proxy": "proxy"}

_LAUNCH = """
import sys
import swift.common.utils
swift.common.utils.SWIFT_CONF_FILE = sys.argv.pop(1)
from swift.{module}.server import main
sys.exit(main())
"""

_RINGS = """
import pathlib, sys
from swift.common.ring import RingBuilder
folder, *nodes = sys.argv[1:]
for kind, port in (node.split(":") for node in nodes):
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    place = {"ip": "127.0.0.1", "port": int(port), "device": "d1", "region": 1, "zone": 1, "weight": 1.0}
    builder.add_dev(place)
    builder.rebalance()
    builder.get_ring().save(str(pathlib.Path(folder, kind + ".ring.gz")))
"""


def _folder() -> Path:
    """Return a new folder on a file system with extended attributes, where Swift keeps what it knows of an object."""
    places = (Path(tempfile.gettempdir()), ENVIRONMENT)
    for place in places:
        folder = Path(tempfile.mkdtemp(prefix="rowmint-swift-", dir=place))
        try:
            os.setxattr(folder, "user.rowmint", b"1")
        except OSError:
            folder.rmdir()
        else:
            return folder
    tried = " nor ".join(map(str, places))
    raise OSError(f"neither {tried} keeps user extended attributes, which Swift needs; set TMPDIR to a folder on ext4")


class SwiftServer:
    """Swift on one node, one copy of everything: four processes over a folder that is removed with them.

    Nothing runs before `start`; `close` ends the processes and removes the folder.
    """

    def __init__(self) -> None:
        self._python = ENVIRONMENT / "bin" / "python"
        if not (ENVIRONMENT / ".ready").exists():
            raise FileNotFoundError(f"Swift is not installed; run `make {ENVIRONMENT.name}/.ready`")
        self.folder = _folder()
        self.secret = secrets.token_hex(16)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = {kind: free_port() for kind in _MODULES}
        self._numbers = count(1)
        self._configure()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['proxy']}"

    @property
    def options(self) -> dict[str, Any]:
        """Return what `open_store` takes beside the URL, JSON values; a service that is down is soon given up."""
        return {
            "endpoint": self.endpoint,
            "region": REGION,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": self.secret,
            "virtual_hosted_style_request": False,
            "client_options": {"allow_http": True, "timeout": "60s"},
            "retry_config": {"max_retries": 2},
        }

    def create_bucket(self) -> str:
        """Make an empty bucket and return its URL."""
        name = f"bucket-{next(self._numbers)}"
        options = {key: value for key, value in self.options.items() if key not in ("client_options", "retry_config")}
        store = S3Store(name, config=options, client_options={"allow_http": True})
        with urlopen(Request(obstore.sign(store, "PUT", "", _MINUTE), method="PUT"), timeout=60) as answer:
            answer.read()
        return f"s3://{name}"

    def start(self) -> None:
        """Start every process and wait until the service answers."""
        for kind, module in _MODULES.items():
            with self._log(kind).open("ab") as output:
                self.processes[kind] = subprocess.Popen(
                    [
                        self._python,
                        "-c",
                        _LAUNCH.format(module=module),
                        self._etc / "swift.conf",
                        self._etc / f"{kind}-server.conf",
                        "-v",
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                )
        wait_until(self._answers, "Swift answering")

    def stop(self) -> None:
        """End the service in good order."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(PATIENCE)
        self.processes = {}

    def kill(self) -> None:
        """End the service as a crash does."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes = {}

    def restart(self) -> None:
        """Stop, where it runs, and start again at the same ports."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the service and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _etc(self) -> Path:
        return self.folder / "etc"

    def _log(self, kind: str) -> Path:
        return self.folder / f"{kind}.log"

    def _answers(self) -> bool:
        for kind, process in self.processes.items():
            if process.poll() is not None:
                raise OSError(f"Swift's {kind} server did not start:\n{self._log(kind).read_text()[-4000:]}")
        for port in self._ports.values():
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                return False
        try:
            urlopen(f"{self.endpoint}/healthcheck", timeout=10).close()
        except OSError:
            return False
        return True

    def _configure(self) -> None:
        self._etc.mkdir()
        (self.folder / "devices" / "d1").mkdir(parents=True)
        cluster = _CLUSTER.format(prefix=secrets.token_hex(8), suffix=secrets.token_hex(8))
        (self._etc / "swift.conf").write_text(cluster)
        for kind, port in self._ports.items():
            values = {"port": port, "user": getpass.getuser(), "folder": self.folder, "kind": kind}
            values |= {"region": REGION, "secret": self.secret, "listed": LISTED_AT_ONCE}
            text = (_PROXY if kind == "proxy" else _STORAGE).format(**values) + _PATIENT
            (self._etc / f"{kind}-server.conf").write_text(text)
        subprocess.run(
            [
                self._python,
                "-c",
                _RINGS,
                self._etc,
                *(f"{kind}:{self._ports[kind]}" for kind in _MODULES if kind != "proxy"),
            ],
            check=True,
            capture_output=True,
            cwd=self.folder,
        )
