"""What a driver declares, in words: its settings, its fields, an example to paste. Nothing here is listed by hand."""

import ast
import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect as declared

from drivers import registry
from drivers.contract import Duration, Field, MissingLibrary, PositiveDuration, Size, decode_quantity
from drivers.registry import Buses, Kind

_PLAIN = {
    declared.BoolType: "true or false",
    declared.StrType: "text",
    declared.IntType: "whole number",
    declared.FloatType: "number",
    declared.NoneType: "nothing",
}
_QUANTITIES: Mapping[type, str] = {
    Duration: "duration",
    PositiveDuration: "duration above zero",
    Size: "size",
}


class Setting(msgspec.Struct, frozen=True):
    """One setting: `type` in words with its range, `default` and `example` as a configuration holds them, or None."""

    name: str
    type: str
    unit: str
    required: bool
    default: Any
    example: Any
    description: str


class Description(msgspec.Struct, frozen=True):
    """All that a driver declares; `fields` is empty for what is no sensor."""

    kind: Kind
    name: str
    summary: str
    settings: tuple[Setting, ...]
    fields: dict[str, Field]
    example: str


class Entry(msgspec.Struct, frozen=True):
    """One driver in the list. `missing` says which library it lacks and how to install it, None if it is ready."""

    kind: Kind
    name: str
    summary: str
    missing: str | None


def entries() -> list[Entry]:
    """Every driver that is installed, those that lack a library too."""
    return [_entry(kind, name) for kind in registry.KINDS for name in registry.names(kind)]


def describe(kind: Kind, name: str) -> Description:
    """Describe one driver; raises UnknownDriver and MissingLibrary."""
    driver = registry.load(kind, name)
    settings = tuple(_setting(field) for field in _struct(driver).fields)
    summary = _summary(driver)
    return Description(kind, name, summary, settings, _fields(driver), _example(kind, name, summary, settings))


def example(kind: Kind, name: str) -> str:
    """A section of the configuration, ready to paste: required settings filled in, the rest explained."""
    return describe(kind, name).example


def _entry(kind: Kind, name: str) -> Entry:
    try:
        driver = registry.load(kind, name)
    except MissingLibrary as error:
        return Entry(kind, name, _first_line(_unloaded_docstring(kind, name)), str(error))
    return Entry(kind, name, _summary(driver), None)


def _summary(driver: Any) -> str:
    """The first line of the docstring of the driver's module."""
    return _first_line(sys.modules[driver.__module__].__doc__)


def _unloaded_docstring(kind: Kind, name: str) -> str | None:
    """The docstring of a driver that lacks a library, read from its source; None for a driver of another package."""
    spec = find_spec(f"drivers.{kind}s.{name}")
    if spec is None or spec.origin is None:
        return None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().split("\n", 1)[0]


def _struct(driver: Any) -> declared.StructType:
    info = declared.type_info(driver.Settings)
    if not isinstance(info, declared.StructType):
        raise TypeError(f"{driver.__qualname__}.Settings: expected a Settings struct, found {driver.Settings!r}")
    return info


def _fields(driver: Any) -> dict[str, Field]:
    """The fields of a sensor. Those that depend on the machine are asked of an instance made from the examples."""
    if isinstance(fields := getattr(driver, "fields", {}), Mapping):
        return dict(fields)
    required = {field.encode_name: _example_value(field) for field in _struct(driver).fields if field.required}
    settings = msgspec.convert(required, driver.Settings, dec_hook=decode_quantity)
    return dict(driver(settings, Buses()).fields)


def _setting(field: declared.Field) -> Setting:
    meta = _meta(field)
    return Setting(
        name=field.encode_name,
        type=_type_in_words(field.type),
        unit=str(meta.get("unit", "")),
        required=field.required,
        default=None if field.required else _written(_default(field)),
        example=_written(_example_value(field)),
        description=str(meta.get("description", "")),
    )


def _meta(field: declared.Field) -> dict[str, Any]:
    """What msgspec.Meta says of a field: its extra, and the description and examples that go into a JSON schema."""
    if isinstance(field.type, declared.Metadata):
        return {**(field.type.extra_json_schema or {}), **(field.type.extra or {})}
    return {}


def _default(field: declared.Field) -> Any:
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default


def _example_value(field: declared.Field) -> Any:
    """What to show: the default, else the first of `examples`, else None."""
    default = None if field.required else _default(field)
    return next(iter(_meta(field).get("examples", ())), None) if default is None else default


def _type_in_words(kind: declared.Type) -> str:
    if isinstance(kind, declared.Metadata):
        return _type_in_words(kind.type)
    if isinstance(kind, declared.UnionType):
        return " or ".join(_type_in_words(each) for each in kind.types if not isinstance(each, declared.NoneType))
    if isinstance(kind, (declared.ListType, declared.VarTupleType, declared.SetType)):
        return f"list of {_type_in_words(kind.item_type)}"
    return f"{_one_in_words(kind)} {_limits(kind)}".rstrip()


def _one_in_words(kind: declared.Type) -> str:
    if isinstance(kind, declared.LiteralType):
        return f"one of {', '.join(str(value) for value in kind.values)}"
    if isinstance(kind, declared.EnumType):
        return f"one of {', '.join(str(member.value) for member in kind.cls)}"
    if isinstance(kind, declared.CustomType):
        return _QUANTITIES.get(kind.cls, kind.cls.__name__)
    if isinstance(kind, (declared.DictType, declared.StructType)):
        return "table"
    return _PLAIN.get(type(kind), "value")


def _limits(kind: Any) -> str:
    """The range of a number or a text: "1..65535", "more than 0", "like ^[0-9]$"."""
    least, most = getattr(kind, "ge", None), getattr(kind, "le", None)
    if least is not None and most is not None:
        return f"{least}..{most}"
    bounds = {
        "ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}", "pattern": "like {}",
        "max_length": "of at most {} characters",
    }  # fmt: skip
    said = [text.format(value) for name, text in bounds.items() if (value := getattr(kind, name, None)) is not None]
    return " and ".join(said)


def _example(kind: Kind, name: str, summary: str, settings: tuple[Setting, ...]) -> str:
    lines = [f"# {summary}", f"[[{kind}]]", f'name = "{name}"', f'driver = "{name}"']
    if kind == "sensor":
        lines.append('interval = "10s"')
    for setting in settings:
        details = ", ".join(filter(None, (setting.type, setting.unit and f"in {setting.unit}")))
        lines += ["", f"# {setting.description} ({details})"]
        mark = "" if setting.required else "# "  # a default need not be repeated
        lines.append(f"{mark}{setting.name} = {'…' if setting.example is None else toml(setting.example)}")
    return "\n".join(lines) + "\n"


def _written(value: Any) -> Any:
    """A value as a configuration holds it: a duration or size is text with its unit."""
    if isinstance(value, (Duration, Size)):
        return str(value)
    return msgspec.json.decode(msgspec.json.encode(value))  # so that tuples, sets and enums are plain too


def toml(value: Any) -> str:
    """A value of `Setting` as TOML writes it; what JSON writes is TOML too, tables apart."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {toml(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(toml(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)
