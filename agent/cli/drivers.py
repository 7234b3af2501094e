"""`edgepost drivers`: list the drivers, or describe one from what it declares."""

import argparse
import difflib

import msgspec

from agent.cli.output import add_json, print_json, print_table
from agent.errors import UsageError
from drivers import describe, registry
from drivers.registry import Kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take an optional driver."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="the driver to describe")
    parser.add_argument(
        "--example", action="store_true", help="print only the section of a configuration that NAME needs"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the list, or what the driver (of each kind that has the name) declares."""
    if args.name is None:
        if args.example:
            raise UsageError("--example needs the NAME of a driver; `edgepost drivers` lists them")
        return _list(as_json=args.json)
    described = [describe.describe(kind, args.name) for kind in _kinds(args.name)]
    if args.json:
        print_json([msgspec.to_builtins(each) for each in described])
        return 0
    for number, each in enumerate(described):
        if number:
            print()
        if args.example:
            print(each.example, end="")
        else:
            _page(each)
    return 0


def _list(*, as_json: bool) -> int:
    entries = describe.entries()
    if as_json:
        print_json([msgspec.to_builtins(entry) for entry in entries])
        return 0
    print_table(("KIND", "NAME", "WHAT IT DOES"), [(entry.kind, entry.name, entry.summary) for entry in entries])
    if missing := [entry.missing for entry in entries if entry.missing]:
        print("", *missing, sep="\n")
    return 0


def _kinds(name: str) -> list[Kind]:
    """The kinds that have a driver of this name; raises UsageError with the nearest name where none has."""
    if kinds := [kind for kind in registry.KINDS if name in registry.names(kind)]:
        return kinds
    known = sorted({each for kind in registry.KINDS for each in registry.names(kind)})
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    raise UsageError(f"no driver is named {name!r}; {hint}")


def _page(described: describe.Description) -> None:
    """Print all about one driver."""
    print(f"{described.kind} {described.name}: {described.summary}\n")
    if described.settings:
        columns = ("SETTING", "TYPE", "UNIT", "DEFAULT", "DESCRIPTION")
        print_table(columns, [(s.name, s.type, s.unit, _default(s), s.description) for s in described.settings])
        print()
    if described.fields:
        fields = described.fields.items()
        print_table(("FIELD", "UNIT", "DESCRIPTION"), [(name, f.unit, f.description) for name, f in fields])
        print()
    print(described.example, end="")


def _default(setting: describe.Setting) -> str:
    if setting.required:
        return "required"
    return "none" if setting.default is None else describe.toml(setting.default)
