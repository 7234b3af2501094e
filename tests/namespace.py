"""A network namespace of a test's own, with two links to it: one to break, and one aside for who watches."""

import os
import shutil
import subprocess
from itertools import count
from types import TracebackType
from typing import Self

IP = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""
_numbers = count()


def _obstacle() -> str:
    if os.geteuid() != 0:
        return "needs root to make a network namespace"
    if not IP:
        return "needs the ip command (iproute2) to make a network namespace"
    name = f"ep-probe-{os.getpid()}"
    made = subprocess.run([IP, "netns", "add", name], capture_output=True, text=True, timeout=10, check=False)
    subprocess.run([IP, "netns", "del", name], capture_output=True, timeout=10, check=False)
    return f"no network namespace can be made: {made.stderr.strip()}" if made.returncode else ""


class Link:
    """A veth pair: `here` and `there` are its addresses. Both ends go with the namespace."""

    def __init__(self, namespace: str, name: str, here: str, there: str) -> None:
        self.here, self.there = here, there
        self._namespace = namespace
        self._here, self._there = f"{name}h", f"{name}t"
        run("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", namespace)
        run("addr", "add", f"{here}/30", "dev", self._here)
        run("-n", namespace, "addr", "add", f"{there}/30", "dev", self._there)
        self.up_here()
        self.up_there()

    def down_here(self) -> None:
        run("link", "set", self._here, "down")

    def up_here(self) -> None:
        run("link", "set", self._here, "up")

    def down_there(self) -> None:
        run("-n", self._namespace, "link", "set", self._there, "down")

    def up_there(self) -> None:
        run("-n", self._namespace, "link", "set", self._there, "up")


class Namespace:
    """Exists within a `with` block. `prefix` runs a command in it."""

    def __init__(self) -> None:
        number = next(_numbers)
        self._name = f"ep-{os.getpid()}-{number}"
        self._tag = f"ep{os.getpid() % 10**6}{chr(97 + number % 26)}"
        self._octet = (os.getpid() + number) % 250
        self.prefix = [IP, "netns", "exec", self._name]

    def __enter__(self) -> Self:
        run("netns", "add", self._name)
        try:
            octet = self._octet  # of 198.18.0.0/15, which is kept for such tests (RFC 2544)
            self.link = Link(self._name, f"{self._tag}l", f"198.18.{octet}.1", f"198.18.{octet}.2")
            self.aside = Link(self._name, f"{self._tag}a", f"198.19.{octet}.1", f"198.19.{octet}.2")
        except BaseException:
            run("netns", "del", self._name)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run("netns", "del", self._name)

    def drop_answers(self) -> None:
        """What is sent to the other end of the link disappears; what comes from there still arrives."""
        run("-n", self._name, "route", "add", "blackhole", f"{self.link.here}/32")

    def pass_answers(self) -> None:
        run("-n", self._name, "route", "del", "blackhole", f"{self.link.here}/32")


def run(*arguments: str) -> None:
    done = subprocess.run([IP, *arguments], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


WHY_NOT = _obstacle()
"""Why no namespace can be made here, or "" when one can."""
