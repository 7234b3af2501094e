"""From a kind and a name to the driver's class, imported on demand.

The drivers that ship with edgepost are the files of `drivers/<kind>s/`. Other packages add theirs under the entry-point
group `edgepost.drivers`, with entries named `<kind>.<name>` that point at the class.
"""

import difflib
import importlib
import importlib.metadata
import pkgutil
from typing import Any, Literal

from drivers.buses.buses import Buses
from drivers.buses.simulated import SimulatedBuses
from drivers.contract import Camera, MissingLibrary, Sensor, UnknownDriver

__all__ = ["KINDS", "Buses", "Kind", "SimulatedBuses", "load", "names"]

Kind = Literal["sensor", "camera"]
KINDS: tuple[Kind, ...] = ("sensor", "camera")
ENTRY_POINTS = "edgepost.drivers"


def names(kind: Kind) -> list[str]:
    """The drivers of a kind, sorted, without importing any of them."""
    package = importlib.import_module(f"drivers.{kind}s")
    shipped = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return sorted(shipped | set(_added(kind)))


def load(kind: Kind, name: str) -> Any:
    """Import a driver's class, a `type[Sensor]` or `type[Camera]`; raises UnknownDriver and MissingLibrary."""
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        raise UnknownDriver(f"no {kind} driver is named {name!r}; {hint}")
    try:
        if entry := _added(kind).get(name):
            return entry.load()
        return importlib.import_module(f"drivers.{kind}s.{name}").DRIVER
    except ModuleNotFoundError as error:
        raise MissingLibrary(
            f"the driver {name!r} needs the library {error.name!r}: install it with: {_install_command(name, error.name)}"
        ) from error


def _added(kind: Kind) -> dict[str, importlib.metadata.EntryPoint]:
    entries = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {entry.name.removeprefix(f"{kind}."): entry for entry in entries if entry.name.startswith(f"{kind}.")}


def _install_command(driver: str, library: str | None) -> str:
    """An extra carries the name of the driver that needs it (see pyproject.toml)."""
    try:
        extras = importlib.metadata.metadata("edgepost").get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        extras = []
    return f"pip install 'edgepost[{driver}]'" if driver in extras else f"pip install {library}"
