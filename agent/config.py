"""The configuration: typed, checked whole, every fault at once as `file:line: key: what is wrong, found, expected`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from agent.errors import ConfigError
from agent.faults import BrokerUrl, ReadableFile, decode, expected_of, faults_of, near, place
from agent.toml_source import Table, read_tables
from drivers import registry
from drivers.contract import DriverError, Duration, PositiveDuration, PositiveInt, Settings, Size

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{1,64}\Z", extra={"expected": "1 to 64 of a-z 0-9 _ -"})]


class DeviceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[device]`: who this is."""

    id: Name = "auto"


class MqttConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[mqtt]`: where the broker is and how to talk to it."""

    urls: Annotated[list[BrokerUrl], msgspec.Meta(min_length=1)]
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    root: Name = "edgepost"
    username: str = ""
    password_file: ReadableFile = ReadableFile()
    ca: ReadableFile = ReadableFile()
    cert: ReadableFile = ReadableFile()
    key: ReadableFile = ReadableFile()
    keepalive: PositiveDuration = PositiveDuration(30)
    connect_timeout: PositiveDuration = PositiveDuration(4)
    ack_timeout: PositiveDuration = PositiveDuration(20)
    window: PositiveInt = 256
    max_rate: Size = Size(0)
    monthly_budget: Size = Size(0)
    compression: Literal["none", "zlib", "zstd"] = "none"

    @staticmethod
    def clashes(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What is wrong with keys taken together, as (key, fault). `given` are those found, good or not."""
        for key, other in (("cert", "key"), ("username", "password_file")):
            for one, missing in ((key, other), (other, key)):
                if given.get(one) and not given.get(missing):
                    yield one, f"found without {missing}, expected both or neither"
        urls = given.get("urls")
        if isinstance(urls, list) and not any(url.startswith(("mqtts:", "wss:")) for url in urls):
            for key in ("ca", "cert", "key"):
                if given.get(key):
                    yield key, "found with no address that uses TLS, expected mqtts:// or wss:// in urls"
        if given.get("compression") == "zstd" and find_spec("zstandard") is None:
            yield "compression", "zstd needs a library: install it with: pip install 'edgepost[zstd]'"
        keepalive = given.get("keepalive")
        if isinstance(keepalive, float) and not 1 <= keepalive <= 65535:
            yield "keepalive", f"found {keepalive:g} s, expected 1s to 65535s"


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[queue]`: how much is kept on disk, and how safely."""

    max_bytes: Size = Size(256 * 2**20)
    on_full: Literal["drop-oldest", "block"] = "drop-oldest"
    durability: Literal["power", "process"] = "power"
    max_age: Duration = Duration(0)
    commit_interval: Duration = Duration(0.1)


class SensorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[[sensor]]`: the agent's own keys; every other key belongs to the driver."""

    name: Name
    driver: str
    interval: PositiveDuration = PositiveDuration(10)
    batch_time: Duration = Duration(1)
    batch_size: PositiveInt = 500
    settings: Any = None


class CameraConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[[camera]]`: the agent's own keys; every other key belongs to the driver."""

    name: Name
    driver: str
    slots: Annotated[int, msgspec.Meta(ge=3, le=64)] = 8
    stall_timeout: PositiveDuration = PositiveDuration(10)
    settings: Any = None
    raw: dict[str, Any] = {}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    device: DeviceConfig
    mqtt: MqttConfig
    queue: QueueConfig
    sensors: list[SensorConfig]
    cameras: list[CameraConfig]


SECTIONS = {"[device]": DeviceConfig, "[mqtt]": MqttConfig, "[queue]": QueueConfig}
SOURCES: dict[str, tuple[registry.Kind, type[Any]]] = {
    "[[sensor]]": ("sensor", SensorConfig),
    "[[camera]]": ("camera", CameraConfig),
}
T = TypeVar("T")
_WRONG = object()  # stands for a value that was reported as a fault


def load(path: Path, *, mqtt_url: str | None = None) -> Config:
    """Read a file and what lies in `conf.d/` beside it; raises ConfigError with every fault.

    `mqtt_url` stands in for `[mqtt] urls`: the simulator brings its own broker.
    """
    faults: list[str] = []
    tables: list[Table] = []
    for file in (path, *sorted((path.parent / "conf.d").glob("*.toml"))):
        try:
            tables += read_tables(file)
        except ConfigError as error:
            faults += error.faults
    if faults:  # what such a file would have said can't be missed
        raise ConfigError(faults)
    checker = _Checker(tables, faults)
    known = [*SECTIONS, *SOURCES]
    for table in tables:
        if table.name not in known:
            faults.append(f"{table.where()}: {table.name}: unknown section{near(table.name, known)}")
    device = checker.section("[device]", DeviceConfig)
    mqtt = checker.section("[mqtt]", MqttConfig, {"urls": [mqtt_url]} if mqtt_url else {}, missing_in=path)
    queue = checker.section("[queue]", QueueConfig)
    sensors, cameras = checker.sources("[[sensor]]"), checker.sources("[[camera]]")
    checker.check_names()
    if not any(table.name in SOURCES or table.name not in known for table in tables):
        faults.append(f"{path}: there is nothing to read: expected a [[sensor]] or [[camera]] (see `edgepost drivers`)")
    if faults or device is None or mqtt is None or queue is None:
        raise ConfigError(sorted(faults, key=place))
    return Config(device=device, mqtt=mqtt, queue=queue, sensors=sensors, cameras=cameras)


class _Checker:
    """Turns tables into structs and collects what is wrong with them."""

    def __init__(self, tables: Sequence[Table], faults: list[str]) -> None:
        self._tables = tables
        self._faults = faults

    def section(
        self, name: str, kind: type[T], given: dict[str, Any] | None = None, missing_in: Path | None = None
    ) -> T | None:
        """One struct from all tables of a name: a later file's keys replace an earlier one's."""
        values: dict[str, Any] = {}
        where = f"{missing_in}"
        for table in self._tables:
            if table.name == name:
                values |= self._convert(table, table.values, kind)
                where = table.where()
        if kind is MqttConfig:
            self._check_clashes(name, values)
        return self._build(kind, values | (given or {}), where, name.strip("[]"))

    def sources(self, name: str) -> list[Any]:
        """The structs of all tables of a name, each with the settings of its driver."""
        built = (self._source(table, *SOURCES[name]) for table in self._tables if table.name == name)
        return [source for source in built if source is not None]

    def check_names(self) -> None:
        """A name stands in topics and file names: there can be only one of each."""
        first: dict[str, str] = {}
        for table in self._tables:
            name = table.values.get("name")
            if table.name in SOURCES and isinstance(name, str):
                if name in first:
                    self._faults.append(f"{table.where('name')}: name: {name!r} is used already at {first[name]}")
                first.setdefault(name, table.where("name"))

    def _check_clashes(self, name: str, values: dict[str, Any]) -> None:
        for key, fault in MqttConfig.clashes(values):
            where = next(t.where(key) for t in reversed(self._tables) if t.name == name and key in t.values)
            self._faults.append(f"{where}: {key}: {fault}")

    def _source(self, table: Table, kind: registry.Kind, struct: type[Any]) -> Any:
        own = {field.name for field in msgspec.structs.fields(struct)} - {"settings", "raw"}
        values = self._convert(table, {key: value for key, value in table.values.items() if key in own}, struct)
        raw = {key: value for key, value in table.values.items() if key not in own}
        if isinstance(values.get("driver"), str):
            try:
                settings_type: type[Settings] = registry.load(kind, values["driver"]).Settings
            except DriverError as error:
                self._faults.append(f"{table.where('driver')}: driver: {error}")
                return None
            converted = self._convert(table, raw, settings_type, also=own)
            values["settings"] = self._build(settings_type, converted, table.where(), table.name.strip("[]"))
        if struct is CameraConfig:
            values["raw"] = raw
        return self._build(struct, values, table.where(), table.name.strip("[]"))

    def _convert(
        self, table: Table, values: dict[str, Any], kind: type[Any], also: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Check key by key, since msgspec stops at the first fault of a struct."""
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        converted: dict[str, Any] = {}
        for key, value in values.items():
            if key not in fields:
                hint = near(key, [*fields, *also])
                self._faults.append(f"{table.where(key)}: {key}: unknown key{hint}")
                continue
            wrong = faults_of(value, fields[key].type)
            self._faults += [f"{table.where(key)}: {key}: {fault}" for fault in wrong]
            converted[key] = _WRONG if wrong else msgspec.convert(value, fields[key].type, dec_hook=decode)
        return converted

    def _build(self, kind: type[T], values: dict[str, Any], where: str, section: str) -> T | None:
        """The struct, when all of its keys are there and good."""
        missing = [field for field in msgspec.structs.fields(kind) if field.required and field.name not in values]  # type: ignore[arg-type]
        for field in missing:
            expected = expected_of(field.type)
            self._faults.append(f"{where}: {section}.{field.name}: is missing{expected and f', expected {expected}'}")
        if missing or _WRONG in values.values():
            return None
        try:
            return kind(**values)
        except ValueError as error:
            self._faults.append(f"{where}: {section}.{error}")
            return None
