"""config/agent.toml explains every key, with the default that the code has."""

import tomllib
from typing import Any

import msgspec
import pytest

from agent.config import CameraConfig, DeviceConfig, MqttConfig, QueueConfig, SensorConfig, load
from tests.support import ROOT

AGENT_TOML = ROOT / "config/agent.toml"
OWN = {"settings", "raw"}


def test_it_is_good_as_it_is() -> None:
    assert [sensor.name for sensor in load(AGENT_TOML).sensors] == ["cpu"]


@pytest.mark.parametrize(
    ("section", "struct"),
    [
        ("device", DeviceConfig),
        ("mqtt", MqttConfig),
        ("queue", QueueConfig),
        ("sensor", SensorConfig),
        ("camera", CameraConfig),
    ],
)
def test_every_key_is_explained_with_its_default(section: str, struct: type[Any]) -> None:
    lines = [line.removeprefix("#") if line.startswith("#") and line[1:2] != " " else line for line in _lines()]
    documented = tomllib.loads("\n".join(lines))[section]
    table = documented[0] if isinstance(documented, list) else documented
    for field in msgspec.structs.fields(struct):
        if field.name in OWN:
            continue
        assert field.name in table, f"{field.name} is not in {AGENT_TOML.name}"
        if not field.required:
            default = field.default
            expected = str(default) if isinstance(default, (float, int)) and type(default) is not int else default
            assert table[field.name] == expected, field.name
    known = {field.name for field in msgspec.structs.fields(struct)} | {"url"}
    assert set(table) <= known


def _lines() -> list[str]:
    return AGENT_TOML.read_text("utf-8").splitlines()
