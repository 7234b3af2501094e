"""`python -m agent.simulator.subscribe URL [TOPIC]`: prints what is published, where there is no mosquitto_sub."""

import sys

from agent.delivery.compression import decompress
from agent.delivery.mqtt import Broker, Connection, ConnectionLost, Received, connect


def main(url: str, topic: str = "edgepost/#") -> int:
    """Print `topic payload` lines until interrupted; returns the exit status."""
    try:
        connection = connect(lambda protocol: Connection(Broker(url), "", protocol), ("5", "3.1.1"), 4.0)
        connection.subscribe(topic)
        while True:
            for event in connection.step(1.0):
                if isinstance(event, Received):
                    print(event.topic, decompress(event.payload).decode("utf-8", "replace"), flush=True)
    except ConnectionLost as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
