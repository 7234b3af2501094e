import enum
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, inspect

from drivers import contract, describe, registry
from drivers.contract import Duration, MissingLibrary, PositiveDuration, Size, UnknownDriver, decode_quantity

EXAMPLES = Path(__file__).parents[3] / "config" / "examples"
SENSORS = registry.names("sensor")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Everything(contract.Settings, frozen=True, kw_only=True):
    port: Annotated[int, Meta(description="where", ge=1, le=65535, examples=[1883])]
    name: str
    gain: Annotated[float, Meta(gt=0, extra={"unit": "dB"})] = 1.5
    wait: PositiveDuration = PositiveDuration(90)
    buffer: Size = Size(2**20)
    mode: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    tags: tuple[str, ...] = ()
    maybe: Annotated[str | None, Meta(examples=["x"])] = None
    on: bool = True


class Driver:
    Settings = Everything


@pytest.fixture
def settings():
    return {setting.name: setting for setting in map(describe._setting, describe._struct(Driver).fields)}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("port", "whole number 1..65535"),
        ("name", "text"),
        ("gain", "number more than 0"),
        ("wait", "duration above zero"),
        ("buffer", "size"),
        ("mode", "one of a, b"),
        ("colour", "one of red, blue"),
        ("tags", "list of text"),
        ("maybe", "text"),
        ("on", "true or false"),
    ],
)
def test_types_are_told_in_words_with_their_range(settings, name, words):
    assert settings[name].type == words


def test_defaults_are_told_as_a_configuration_holds_them(settings):
    defaults = {name: setting.default for name, setting in settings.items() if not setting.required}
    assert defaults == {
        "gain": 1.5,
        "wait": "90s",
        "buffer": "1MiB",
        "mode": "a",
        "colour": "red",
        "tags": [],
        "maybe": None,
        "on": True,
    }


def test_required_settings_have_their_example_and_others_their_default(settings):
    assert {name for name, setting in settings.items() if setting.required} == {"port", "name"}
    assert (settings["port"].example, settings["gain"].example, settings["maybe"].example) == (1883, 1.5, "x")
    assert settings["gain"].unit == "dB"


@pytest.mark.parametrize(
    "value", ["text", 'with "quotes" and ü', 1, 1.5, True, ["a", "b"], {"key": 1, "odd key": ["x"]}, []]
)
def test_values_are_written_as_toml(value):
    assert tomllib.loads(f"value = {describe.toml(value)}") == {"value": value}


@pytest.mark.parametrize("name", SENSORS)
def test_the_example_in_the_tree_is_what_the_driver_declares(name):
    written = (EXAMPLES / f"{name}.toml").read_text(encoding="utf-8")
    assert written == describe.example("sensor", name), (
        f"write it again: edgepost drivers {name} --example > config/examples/{name}.toml"
    )


@pytest.mark.parametrize("name", SENSORS)
def test_the_example_can_be_used_with_every_default_uncommented(name):
    lines = describe.example("sensor", name).splitlines()
    text = "\n".join(line.removeprefix("# ") if " = " in line else line for line in lines)
    (section,) = tomllib.loads(text)["sensor"]
    assert section.pop("driver") == section.pop("name") == name
    Duration.parse(section.pop("interval"))
    declared = registry.load("sensor", name).Settings
    assert set(section) == {field.encode_name for field in msgspec.structs.fields(declared)}
    msgspec.convert(section, declared, dec_hook=decode_quantity)


@pytest.mark.parametrize("name", SENSORS)
def test_every_setting_and_every_field_of_a_sensor_is_described(name):
    described = describe.describe("sensor", name)
    assert described.summary.endswith(".")
    for setting in described.settings:
        assert setting.description, setting.name
        assert not setting.required, f"{setting.name} has no default"
    for field_name, field in described.fields.items():
        assert field.description, field_name


def test_fields_of_a_driver_are_those_of_its_class():
    assert describe.describe("sensor", "gps").fields["speed"].unit == "m/s"


def test_an_unknown_driver_is_refused():
    with pytest.raises(UnknownDriver, match="did you mean 'gps'"):
        describe.describe("sensor", "gsp")


def test_a_driver_that_lacks_its_library_is_listed_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "drivers.sensors.gps", raising=False)
    monkeypatch.setitem(sys.modules, "pynmeagps", None)  # what Python keeps for a module that can't be found
    entry = next(entry for entry in describe.entries() if entry.name == "gps")
    assert entry.summary.startswith("Position")
    assert "pip install 'edgepost[gps]'" in entry.missing
    with pytest.raises(MissingLibrary):
        describe.describe("sensor", "gps")


def test_a_struct_that_is_none_is_refused():
    class Wrong:
        Settings = int

    with pytest.raises(TypeError, match="Settings struct"):
        describe._struct(Wrong)
    assert isinstance(inspect.type_info(Everything), inspect.StructType)
