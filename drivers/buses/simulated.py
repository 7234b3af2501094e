"""The simulated twin of `Buses`: serial devices are models that talk over real kernel ptys."""

from pathlib import Path

from drivers.buses.buses import Buses


class SimulatedBuses(Buses):
    """Gives the driver named `driver` the device model of the same name in `drivers/models/`, if there is one."""

    def __init__(self, driver: str, root: Path = Path("/")) -> None:
        super().__init__(root)
        self.driver = driver
