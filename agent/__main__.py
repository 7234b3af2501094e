"""The command line. Only here the process exits, and only here an error becomes a line on stderr."""

import argparse
import importlib
import sys

from agent.errors import ConfigError, EdgepostError
from drivers.contract import DriverError

COMMANDS = {
    "run": "run the agent",
    "sim": "run the agent on simulated devices, with a broker of its own",
    "check": "check a configuration and report every fault",
    "drivers": "list the drivers, or describe one",
    "status": "ask a running agent how it is",
    "queue": "look into the disk queue",
    "frames": "look at what cameras deliver",
}
"""Each is a file in agent/cli/ with `add_arguments(parser)` and `run(args) -> exit status`."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed while running, 2 bad usage or configuration."""
    try:
        args = _parse(sys.argv[1:] if argv is None else argv)
        return int(importlib.import_module(f"agent.cli.{args.command}").run(args))
    except ConfigError as error:
        print(*error.faults, sep="\n", file=sys.stderr)
        return error.exit_status
    except (EdgepostError, DriverError) as error:
        print(f"edgepost: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        sys.stderr.close()
        return 1
    except OSError as error:
        print(f"edgepost: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edgepost", description="Sensors and cameras of a small device to MQTT and to programs beside it."
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    chosen = parser
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if arguments[:1] == [name]:  # the others stay unloaded
            importlib.import_module(f"agent.cli.{name}").add_arguments(subparser)
            chosen = subparser
    args, unknown = parser.parse_known_args(arguments)
    if args.version:
        from importlib.metadata import version

        print(f"edgepost {version('edgepost')}")
        sys.exit(0)
    if unknown:
        chosen.error(f"unknown: {' '.join(unknown)}")
    if args.command is None:
        parser.error("a COMMAND is missing")
    return args


if __name__ == "__main__":
    sys.exit(main())
