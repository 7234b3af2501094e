"""A Vaisala WXT520 weather transmitter in ASCII polled mode (User's Guide M210906EN-C, chapter 7)."""

import math
import random

from drivers.models.model import SerialModel

_DAY_S = 86_400
_MAX_COMMAND_BYTES = 64
_MESSAGES = {
    "R1": ("Dn", "Dm", "Dx", "Sn", "Sm", "Sx"),
    "R2": ("Ta", "Ua", "Pa"),
    "R3": ("Rc", "Rd", "Ri", "Hc", "Hd", "Hi"),
    "R5": ("Th", "Vh", "Vs"),
}
_MESSAGES["R0"] = sum((_MESSAGES[name] for name in ("R1", "R2", "R3", "R5")), ())


class Wxt520Transmitter:
    """Answers `?`, `a` and `aR0`, `aR1`, `aR2`, `aR3`, `aR5` of its address `a`, and is silent to other addresses.

    Power-on is at eight in the morning of a day in May. It rains for ten minutes of each hour.
    """

    def __init__(self, seed: int = 0, address: str = "0") -> None:
        self._seed = seed
        self._address = address
        self._received = b""

    def step(self, received: bytes, t_s: float) -> bytes:
        """Answer the commands that are complete."""
        *commands, self._received = (self._received + received).split(b"\r\n")
        self._received = self._received[-_MAX_COMMAND_BYTES:]
        return b"".join(self._answer(command.decode("ascii", "replace"), t_s) for command in commands)

    def _answer(self, command: str, t_s: float) -> bytes:
        if command in {"?", self._address}:
            return f"{self._address}\r\n".encode("ascii")
        if not command.startswith(self._address):
            return b""
        names = _MESSAGES.get(command.removeprefix(self._address))
        if names is None:
            return f"{self._address}TX,Unknown cmd error\r\n".encode("ascii")
        values = weather(t_s, random.Random(f"{self._seed} {t_s:.3f}"))  # noqa: S311 (noise, no secret)
        return (",".join([command, *(f"{name}={values[name]}" for name in names)]) + "\r\n").encode("ascii")


def weather(t_s: float, noise: random.Random) -> dict[str, str]:
    """The parameters with their unit letters, `t_s` seconds after eight in the morning."""
    day = math.cos(2 * math.pi * (t_s + 8 * 3600 - 15 * 3600) / _DAY_S)  # 1 at three in the afternoon
    drift = math.sin(2 * math.pi * t_s / (3.3 * _DAY_S))  # the weather's own course over some days
    temperature = 14 + 7 * day + 3 * drift + noise.gauss(0, 0.1)
    humidity = min(max(62 - 20 * day + 8 * drift + noise.gauss(0, 0.5), 5.0), 100.0)
    pressure = 1013.2 - 9 * drift + noise.gauss(0, 0.05)
    direction = 236 + 30 * drift + noise.gauss(0, 6)
    speed = max(2.8 + 1.5 * day + noise.gauss(0, 0.4), 0.1)
    hours, in_hour_s = divmod(t_s, 3600)
    rained_s = hours * 600 + max(in_hour_s - 3000, 0)
    return {
        "Dn": f"{(direction - 25) % 360:03.0f}D",
        "Dm": f"{direction % 360:03.0f}D",
        "Dx": f"{(direction + 25) % 360:03.0f}D",
        "Sn": f"{speed * 0.6:.1f}M",
        "Sm": f"{speed:.1f}M",
        "Sx": f"{speed * 1.5:.1f}M",
        "Ta": f"{temperature:.1f}C",
        "Ua": f"{humidity:.1f}P",
        "Pa": f"{pressure:.1f}H",
        "Rc": f"{rained_s * 1.8 / 3600:.2f}M",
        "Rd": f"{10 * int(rained_s / 10)}s",  # counted in steps of ten seconds
        "Ri": f"{1.8 if in_hour_s >= 3000 else 0.0:.1f}M",
        "Hc": "0.0M",
        "Hd": "0s",
        "Hi": "0.0M",
        "Th": f"{temperature + 0.6:.1f}C",
        "Vh": "0.0N",
        "Vs": f"{12.1 + noise.gauss(0, 0.02):.1f}V",
    }


MODEL: type[SerialModel] = Wxt520Transmitter
