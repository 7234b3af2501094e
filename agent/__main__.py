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
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="edgepost", description="Sensors and cameras of a small device to MQTT and to programs beside it."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if arguments[:1] == [name]:  # the others stay unloaded
            importlib.import_module(f"agent.cli.{name}").add_arguments(subparser)
    args = parser.parse_args(arguments)
    command = importlib.import_module(f"agent.cli.{args.command}")
    try:
        return int(command.run(args))
    except ConfigError as error:
        print(*error.faults, sep="\n", file=sys.stderr)
        return error.exit_status
    except EdgepostError as error:
        print(f"edgepost: {error}", file=sys.stderr)
        return error.exit_status
    except DriverError as error:
        print(f"edgepost: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
