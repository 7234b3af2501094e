"""`edgepost check`: every fault of a configuration at once."""

import argparse
from pathlib import Path

from agent import config, paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"configuration (default: {paths.config_file()})")


def run(args: argparse.Namespace) -> int:
    path = args.config or paths.config_file()
    loaded = config.load(path)
    urls = ", ".join(loaded.mqtt.urls)
    print(f"{path}: good; sensors: {len(loaded.sensors)}, cameras: {len(loaded.cameras)}, brokers: {urls}")
    return 0
