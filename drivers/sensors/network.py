"""How much a network interface receives and sends, and what it lost."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from drivers import contract
from drivers.buses.buses import Buses
from drivers.buses.sysfs import read_text
from drivers.contract import BadData, DeviceAbsent, Field, Reading, Sensor, Value

_ROUTE_UP = 1  # RTF_UP in <linux/route.h>


class NetworkSettings(contract.Settings, frozen=True, kw_only=True):
    interface: Annotated[
        str | None,
        Meta(
            description="the interface; without it the one of the default route, or all but lo where there is no route",
            examples=["eth0"],
        ),
    ] = None


class Counters(Struct, frozen=True):
    """What /proc/net/dev counts for an interface, since the interface came into being."""

    rx_bytes: int
    rx_errors: int
    rx_drops: int
    tx_bytes: int
    tx_errors: int
    tx_drops: int


class Network:
    """Traffic from /proc/net/dev, the default route from /proc/net/route (see proc(5)).

    Rates need two samples, so the first reading after `open()` has none, nor has the first after the default route
    moved to another interface.
    """

    Settings: ClassVar[type[contract.Settings]] = NetworkSettings
    fields: ClassVar[Mapping[str, Field]] = {
        "rx_rate": Field("By/s", "received since the reading before"),
        "tx_rate": Field("By/s", "sent since the reading before"),
        "rx_errors": Field("", "bad packets received, since the interface came into being"),
        "tx_errors": Field("", "packets that could not be sent, since then"),
        "rx_drops": Field("", "good packets received and dropped, since then"),
        "tx_drops": Field("", "packets dropped before they were sent, since then"),
    }

    def __init__(
        self, settings: NetworkSettings, buses: Buses, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._interface = settings.interface
        self._dev = buses.root / "proc/net/dev"
        self._route = buses.root / "proc/net/route"
        self._monotonic = monotonic
        self._before: dict[str, Counters] = {}
        self._before_s = 0.0

    def open(self) -> None:
        self._before = {}
        self._sample()

    def read(self) -> Sequence[Reading]:
        now_s = self._monotonic()
        now = self._sample()
        values: dict[str, Value] = {
            name: sum(getattr(counters, name) for counters in now.values())
            for name in ("rx_errors", "tx_errors", "rx_drops", "tx_drops")
        }
        elapsed_s = now_s - self._before_s
        pairs = [(now[name], self._before[name]) for name in now if name in self._before]
        # A counter that ran backwards belongs to an interface that was taken away and came back.
        pairs = [(a, b) for a, b in pairs if a.rx_bytes >= b.rx_bytes and a.tx_bytes >= b.tx_bytes]
        if pairs and elapsed_s > 0:
            values["rx_rate"] = round(sum(a.rx_bytes - b.rx_bytes for a, b in pairs) / elapsed_s, 1)
            values["tx_rate"] = round(sum(a.tx_bytes - b.tx_bytes for a, b in pairs) / elapsed_s, 1)
        self._before, self._before_s = now, now_s
        return [Reading(values)] if now else []

    def close(self) -> None:
        """Nothing is held."""

    def _sample(self) -> dict[str, Counters]:
        """The counters of the interfaces that are watched at this moment."""
        wanted = self._interface or self._default_interface()
        sample: dict[str, Counters] = {}
        for line in read_text(self._dev).splitlines()[2:]:  # two lines of headings
            name, _, counts = line.partition(":")
            name = name.strip()
            if name == wanted or (wanted is None and name != "lo"):
                sample[name] = self._counters(counts)
        if self._interface is not None and not sample:
            raise DeviceAbsent(f"{self._interface}: there is no such network interface (`ip link` lists them)")
        return sample

    def _counters(self, counts: str) -> Counters:
        try:
            # receive: bytes packets errs drop fifo frame compressed multicast, transmit: bytes packets errs drop …
            numbers = [int(word) for word in counts.split()]
            return Counters(numbers[0], numbers[2], numbers[3], numbers[8], numbers[10], numbers[11])
        except (ValueError, IndexError) as error:
            raise BadData(f"{self._dev}: expected 16 counters, found {counts!r}") from error

    def _default_interface(self) -> str | None:
        """The interface of the default route with the lowest metric, None where there is none."""
        routes: list[tuple[int, str]] = []
        try:
            for line in read_text(self._route).splitlines()[1:]:
                # Iface Destination Gateway Flags RefCnt Use Metric Mask …; addresses and flags in hexadecimal
                words = line.split()
                if words[1] == words[7] == "00000000" and int(words[3], 16) & _ROUTE_UP:
                    routes.append((int(words[6]), words[0]))
        except DeviceAbsent:  # a kernel without IPv4
            return None
        except (ValueError, IndexError) as error:
            raise BadData(f"{self._route}: expected a routing table") from error
        return min(routes)[1] if routes else None


DRIVER: type[Sensor] = Network
