"""`edgepost run`: the agent, until SIGTERM or SIGINT."""

import argparse
import logging
from pathlib import Path

from agent import config, paths
from agent.app import App
from agent.cli.logs import set_up_logging
from agent.cli.output import add_data_dir, add_runtime_dir
from agent.cli.signals import stop_on_signal

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"configuration (default: {paths.config_file()})")
    add_data_dir(parser)
    add_runtime_dir(parser)


def run(args: argparse.Namespace) -> int:
    set_up_logging()
    stop = stop_on_signal()
    loaded = config.load(args.config or paths.config_file())
    app = App(loaded, paths.data_dir(args.data_dir), paths.runtime_dir(args.runtime_dir))
    app.start()
    log.info("running as %s; sensors: %d, cameras: %d", app.device, len(loaded.sensors), len(loaded.cameras))
    stop.wait()
    app.stop()
    log.info("stopped; %d messages wait in the queue", app.queue.stats().waiting)
    return 0
