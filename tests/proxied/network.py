"""A network of loopback addresses only, in which names mean what a test says.

Linux gives a user a namespace in which he owns the network and may mount: services listen there on the ports that they
have in production, under the names that they have there, and nothing of it exists on the machine. The network goes with
the last process that lives in it.
"""

import contextlib
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.acceptance.processes import free_port
from tests.waiting import wait_until

_RELAY = Path(__file__).with_name("relay.py")
_NAME_SERVER = Path(__file__).with_name("name_server.py")
# Brings loopback up, sends questions for names to the name server, and stays until its input ends: when the test does,
# at the latest.
_HOLD = """
import fcntl, socket, struct, subprocess, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
subprocess.run(["mount", "--bind", sys.argv[2], "/etc/hosts"], check=True)
server = subprocess.Popen([sys.executable, "-IS", sys.argv[3], sys.argv[4]])
sys.stdin.read()
server.kill()
"""


class Network:
    """A network of its own. Close it.

    Args:
        folder: An empty folder for the few files that it needs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = folder / "names"
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        self._relays: list[subprocess.Popen[bytes]] = []
        self.name({})
        files = [folder / "resolv.conf", folder / "hosts", _NAME_SERVER, self._names]
        command = ["unshare", "--user", "--map-root-user", "--net", "--mount", sys.executable, "-ISc", _HOLD, *files]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            _, reason = self._holder.communicate()
            raise PermissionError(
                f"this user may not make a namespace with a network ({reason.decode().strip()}), which the tests behind"
                " Envoy need; allow it (sysctl kernel.apparmor_restrict_unprivileged_userns=0; in a container,"
                " --security-opt seccomp=unconfined --security-opt systempaths=unconfined)"
            )
        entered = ["--target", str(self._holder.pid), "--user", "--preserve-credentials", "--net", "--mount"]
        self._enter = ["nsenter", *entered, "--"]
        self.interpreter = str(folder / "inside")
        """A Python interpreter whose programs live in this network."""
        script = Path(self.interpreter)
        # Who enters stands at the root; both go on in the folder that they were started in.
        script.write_text(f'#!/bin/sh\nexec {shlex.join([*self._enter, "env", "-C"])} "$PWD" {sys.executable} "$@"\n')
        script.chmod(0o755)

    def name(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """Say which addresses each name has from now on; there are no others."""
        lines = [f"{address} {name}\n" for name, several in addresses.items() for address in several]
        written = self._folder / "names.new"
        written.write_text("".join(lines))
        written.replace(self._names)

    def add_address(self, address: str) -> None:
        """Give this network an address beside those of loopback, from which programs in it may call."""
        code = (
            "import fcntl, socket, struct, sys;"
            "fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8916,"  # SIOCSIFADDR
            " struct.pack('16sH2x4s8x', b'lo:1', socket.AF_INET, socket.inet_aton(sys.argv[1])))"
        )
        subprocess.run([*self._enter, sys.executable, "-ISc", code, address], check=True)

    def start(self, command: Sequence[str | Path], log: Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a program in this network; who does so ends it."""
        inside = [*self._enter, "env", "-C", cwd or self._folder, *command]
        with log.open("ab") as output:
            return subprocess.Popen(inside, stdout=output, stderr=subprocess.STDOUT)

    def publish(self, address: str) -> int:
        """Let the machine reach `host:port` of this network; return the port at which it does, on 127.0.0.1."""
        host, _, port = address.rpartition(":")
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            outer = free_port()
            listener.bind(("127.0.0.1", outer))
            listener.listen(128)
            os.set_inheritable(listener.fileno(), True)
            # Made out here, accepted from in there: a socket belongs to the network that it was made in.
            command = [*self._enter, sys.executable, "-IS", _RELAY, str(listener.fileno()), host, port]
            self._relays.append(subprocess.Popen(command, pass_fds=[listener.fileno()]))
        return outer

    def output_of(self, command: Sequence[str | Path]) -> str:
        """Run a program in this network to its end; return what it wrote.

        Raises:
            subprocess.CalledProcessError: It failed.
        """
        return subprocess.check_output([*self._enter, *command], text=True)

    def names_seen(self, name: str) -> list[str]:
        """Return the addresses that a program in this network finds for a name."""
        code = f"import socket; print(*sorted({{a[4][0] for a in socket.getaddrinfo({name!r}, None, socket.AF_INET)}}))"
        return self.output_of([sys.executable, "-ISc", code]).split()

    def close(self) -> None:
        """End the relays, and the network where no other process runs in it."""
        for relay in self._relays:
            relay.kill()
            relay.wait()
        with contextlib.suppress(BrokenPipeError):
            self._holder.communicate()
        wait_until(lambda: self._holder.poll() is not None, "the end of the network")
