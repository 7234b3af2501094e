"""A receiver that trusts nobody: it subscribes like any other and judges by (topic, epoch, seq) what arrived."""

import json
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

from agent.delivery.compression import decompress
from agent.delivery.mqtt import Acknowledgement, Broker, Connection, connect
from agent.health import PartHealth

log = logging.getLogger(__name__)

CONNECT_S = 4.0
MAX_SEQ = 100_000_000


class SeqLedger:
    """Which seqs of one topic and epoch have arrived."""

    def __init__(self) -> None:
        self._seen = bytearray()  # one byte a seq
        self.received = 0
        self.duplicates = 0
        self.out_of_order = 0

    def note(self, seq: int) -> None:
        """A message has arrived; raises ValueError for what can't be a seq."""
        if not 0 < seq < MAX_SEQ:
            raise ValueError(f"found seq {seq}, expected 1 to {MAX_SEQ}")
        if seq >= len(self._seen):
            self._seen.extend(bytes(seq + 1 - len(self._seen)))
        elif self._seen[seq]:
            self.duplicates += 1
            return
        else:
            self.out_of_order += 1
        self._seen[seq] = 1
        self.received += 1

    def missing(self, after: int, last: int) -> int:
        """How many of those after `after`, up to `last`, have not arrived."""
        return max(0, last - after - sum(self._seen[after + 1 : last + 1]))


class Verifier:
    """A supervised part. `ready` is set once it is subscribed, `first_telemetry` once a reading has arrived."""

    name = "verifier"

    def __init__(self, broker: Broker, root: str) -> None:
        self.ready = threading.Event()
        self.first_telemetry = threading.Event()
        self.first_telemetry_at_s = 0.0
        self._broker = broker
        self._root = root
        self._client_id = f"edgepost-verifier-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._topics: dict[tuple[str, str], SeqLedger] = {}
        self._unreadable = 0

    def run(self, stop: threading.Event, health: PartHealth) -> None:
        """Receive until told to stop. Its session outlives its connections: the broker keeps what comes meanwhile."""
        connection = connect(
            lambda protocol: Connection(self._broker, self._client_id, protocol, keep_session=True),
            ("5", "3.1.1"),
            CONNECT_S,
        )
        try:
            connection.subscribe(f"{self._root}/#")
            while not stop.is_set():
                for event in connection.step(0.2):
                    if isinstance(event, Acknowledgement):
                        self.ready.set()
                    else:
                        self._take(event.topic, event.payload)
                health.ok()
        finally:
            connection.close()

    def totals(self, prefix: str, epoch: str) -> Mapping[str, int]:
        """Messages below `prefix` of `epoch`: received (each once), duplicates, out of order; and the unreadable."""
        with self._lock:
            mine = [key for key in self._topics if key[0].startswith(f"{prefix}/") and key[1] == epoch]
            ledgers = [self._topics[key] for key in mine]
            return {
                "received": sum(ledger.received for ledger in ledgers),
                "duplicates": sum(ledger.duplicates for ledger in ledgers),
                "out_of_order": sum(ledger.out_of_order for ledger in ledgers),
                "unreadable": self._unreadable,
            }

    def missing(self, prefix: str, epoch: str, last_seqs: Mapping[str, int], seqs_before: Mapping[str, int]) -> int:
        """How many of the messages that were given a seq since `seqs_before` have not arrived, over all topics."""
        with self._lock:
            return sum(
                self._topics.get((f"{prefix}/{topic}", epoch), SeqLedger()).missing(seqs_before.get(topic, 0), last)
                for topic, last in last_seqs.items()
            )

    def _take(self, topic: str, payload: bytes) -> None:
        if "/telemetry/" not in topic and "/event/" not in topic:
            return
        try:
            body: dict[str, Any] = json.loads(decompress(payload))
            with self._lock:
                self._topics.setdefault((topic, str(body["epoch"])), SeqLedger()).note(int(body["seq"]))
        except (ValueError, KeyError, TypeError):
            with self._lock:
                self._unreadable += 1
            return
        if "/telemetry/" in topic and not self.first_telemetry.is_set():
            self.first_telemetry_at_s = time.monotonic()
            self.first_telemetry.set()
