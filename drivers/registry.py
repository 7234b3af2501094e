"""From a kind and a name to the driver's class, imported on demand.

The drivers that ship with edgepost are the files of `drivers/<kind>s/`. Other packages add theirs under the entry-point
group `edgepost.drivers`, with entries named `<kind>.<name>` that point at the class.
"""

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, Literal

from drivers.buses.buses import Buses
from drivers.contract import MissingLibrary, UnknownDriver

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["KINDS", "Buses", "Kind", "load", "names", "simulated_buses"]

Kind = Literal["sensor", "camera"]
KINDS: tuple[Kind, ...] = ("sensor", "camera")
ENTRY_POINTS = "edgepost.drivers"


def names(kind: Kind) -> list[str]:
    """The drivers of a kind, sorted, without importing any of them."""
    return sorted(_shipped(kind) | set(_added(kind)))


def load(kind: Kind, name: str) -> Any:
    """Import a driver's class, a `type[Sensor]` or `type[Camera]`; raises UnknownDriver and MissingLibrary."""
    try:
        if name in _shipped(kind):
            return importlib.import_module(f"drivers.{kind}s.{name}").DRIVER
        if entry := _added(kind).get(name):
            return entry.load()
    except ModuleNotFoundError as error:
        command = _install_command(name, error.name)
        raise MissingLibrary(f"the driver {name!r} needs the library {error.name!r}: {command}") from error
    known = names(kind)
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    raise UnknownDriver(f"no {kind} driver is named {name!r}; {hint}")


def simulated_buses(driver: str) -> Buses:
    """Buses whose serial devices are the driver's own model, where it has one; whoever asks for them closes them."""
    from drivers.buses.simulated import SimulatedBuses

    return SimulatedBuses(driver)


def _shipped(kind: Kind) -> set[str]:
    package = importlib.import_module(f"drivers.{kind}s")
    return {module.name for module in pkgutil.iter_modules(package.__path__)}


def _added(kind: Kind) -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points  # reads every installed package: only where it is needed

    entries = entry_points(group=ENTRY_POINTS)
    return {entry.name.removeprefix(f"{kind}."): entry for entry in entries if entry.name.startswith(f"{kind}.")}


def _install_command(driver: str, library: str | None) -> str:
    """An extra carries the name of the driver that needs it (see pyproject.toml)."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        extras = metadata("edgepost").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        extras = []
    return "install it with: pip install " + (f"'edgepost[{driver}]'" if driver in extras else str(library))
