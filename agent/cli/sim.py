"""`edgepost sim`: the real agent on simulated devices, with a broker and a verifier that counts what arrives."""

import argparse
import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

import msgspec

from agent import config, paths
from agent.cli.logs import set_up_logging
from agent.cli.output import add_data_dir, add_runtime_dir
from agent.cli.signals import stop_on_signal
from agent.errors import UsageError
from agent.faults import BrokerUrl
from agent.simulator.broker import OwnBroker
from agent.simulator.outage import Outage, parse_outage
from agent.simulator.simulation import Simulation, say
from drivers.contract import Duration

PARK = Path(__file__).parents[1] / "simulator/park.toml"
PROGRESS_S = 10.0
TEMPORARY = "edgepost-sim-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=PARK, help="configuration (default: a small park)"
    )
    parser.add_argument("--duration", metavar="TIME", help="end by itself after, for example, 20s")
    parser.add_argument("--outage", metavar="FROM..TO", help="take the broker away, for example 5s..15s")
    parser.add_argument("--broker", metavar="URL", help="use this broker instead of starting one")
    parser.add_argument("--camera", metavar="SOURCE", help="a file, /dev/video0, an rtsp address, 'scene' or 'none'")
    add_data_dir(parser)
    add_runtime_dir(parser)


def run(args: argparse.Namespace) -> int:
    started_s = time.monotonic() - time.process_time()  # what it took to get here was work, not waiting
    set_up_logging("WARNING")
    stop = stop_on_signal()
    duration_s = _duration(args.duration)
    outage = parse_outage(args.outage) if args.outage else None
    if outage and args.broker:
        raise UsageError("--outage takes away the simulator's own broker: leave out --broker")
    if outage and duration_s is not None and outage.end_s > duration_s:
        raise UsageError(f"--outage {args.outage}: ends after --duration {args.duration}")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{os.getpid()}-")))
        _sweep(directory.parent)
        tempfile.tempdir = str(directory)  # what the simulated devices need goes with it
        broker = None if args.broker else OwnBroker(directory / "broker")
        url = broker.url if broker else _broker_url(args.broker)
        loaded = with_camera(config.load(args.config, mqtt_url=url), args.camera)
        if broker:
            stack.callback(broker.stop)
            broker.start()
            say("broker", f"{broker.name} on 127.0.0.1:{broker.port}")
        data = paths.data_dir(args.data_dir) if args.data_dir else directory / "data"
        simulation = Simulation(loaded, data, paths.runtime_dir(args.runtime_dir))
        stack.callback(simulation.close)
        simulation.start(started_s, stop)
        _introduce(loaded, url, args, data)
        _keep_going(simulation, stop, duration_s, outage, broker)
        return simulation.finish(kept=bool(args.data_dir))


def with_camera(loaded: config.Config, source: str | None) -> config.Config:
    """The configuration with one camera that shows `source` in place of its own; raises UsageError."""
    if source is None:
        return loaded
    if source == "none":
        return msgspec.structs.replace(loaded, cameras=[])
    if source == "scene":
        driver, raw = "scene", {}
    elif "://" in source:
        driver, raw = "rtsp", {"url": source}
    elif source.startswith("/dev/video"):
        driver, raw = "v4l2", {"device": source}
    elif Path(source).is_file():
        driver, raw = "file", {"path": str(Path(source).absolute())}
    else:
        raise UsageError(
            f"--camera {source}: no such file; expected a file, /dev/video0, an address, 'scene' or 'none'"
        )
    camera = config.CameraConfig(name="gate", driver=driver, raw=raw)
    return msgspec.structs.replace(loaded, cameras=[camera])


def _introduce(loaded: config.Config, url: str, args: argparse.Namespace, data: Path) -> None:
    """What to look at, each as a line to paste, and how to stop."""
    parts = urllib.parse.urlsplit(url)
    topic = f"{loaded.mqtt.root}/#"
    if shutil.which("mosquitto_sub") and parts.scheme == "mqtt":
        subscribe = f"mosquitto_sub -h {parts.hostname} -p {parts.port or 1883} -t '{topic}' -v"
    else:
        subscribe = f"{shlex.quote(sys.executable)} -m agent.simulator.subscribe {url} '{topic}'"
    program = Path(sys.argv[0])
    edgepost = shlex.quote(str(program)) if program.name == "edgepost" else "edgepost"
    runtime = f" --runtime-dir {shlex.quote(str(args.runtime_dir))}" if args.runtime_dir else ""
    print(f"\nbroker   {url}   subscribe with:\n         {subscribe}")
    print(f"config   {args.config}")
    print(f"look     {edgepost} status{runtime}")
    if loaded.cameras:
        print(f"         {edgepost} frames save {loaded.cameras[0].name} out.jpg{runtime}")
    print(f"         {edgepost} queue status --data-dir {shlex.quote(str(data))}")
    print("stop     Ctrl-C\n", flush=True)


def _sweep(directory: Path) -> None:
    """Remove what simulators that were killed left behind."""
    for left in directory.glob(f"{TEMPORARY}*-*"):
        owner = left.name.removeprefix(TEMPORARY).split("-", 1)[0]
        if owner.isdigit() and left.stat().st_uid == os.geteuid() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)


def _keep_going(
    simulation: Simulation,
    stop: threading.Event,
    duration_s: float | None,
    outage: Outage | None,
    broker: OwnBroker | None,
) -> None:
    """Run until told to stop or the time is over, with the outage in between and a line of progress now and then."""
    begin = time.monotonic()
    live = sys.stdout.isatty()
    next_line = PROGRESS_S
    away = False
    while not stop.wait(0.05):
        now = time.monotonic() - begin
        if duration_s is not None and now >= duration_s:
            break
        if outage and broker and not away and outage.start_s <= now < outage.end_s:
            away = True
            broker.take_away()
            say("outage", f"{broker.name} is gone")
        elif away and broker and outage and now >= outage.end_s:
            away, outage = False, None
            broker.start()
            say("outage", f"{broker.name} is back, {simulation.app.queue.stats().waiting} messages wait")
        if now >= next_line:
            next_line = now + (1.0 if live else PROGRESS_S)
            print(_progress(simulation, now), end="\r" if live else "\n", flush=True)
    if live:
        print()
    if away and broker:
        broker.start()


def _progress(simulation: Simulation, elapsed_s: float) -> str:
    figures = simulation.figures()
    rate = figures["readings"] / max(elapsed_s, 1.0)
    return (
        f"{elapsed_s:6.0f} s  {figures['readings']} readings ({rate:.1f}/s)  {figures['received']} messages received  "
        f"{figures['waiting']} waiting "
    )


def _broker_url(text: str) -> str:
    try:
        return BrokerUrl.parse(text)
    except ValueError as error:
        raise UsageError(f"--broker: {error}") from error


def _duration(text: str | None) -> float | None:
    try:
        return None if text is None else float(Duration.parse(text))
    except ValueError as error:
        raise UsageError(f"--duration: {error}") from error
