"""The verifier finds every loss, duplicate and disorder: a judge that can't convict proves nothing."""

import json

import pytest

from agent.delivery.mqtt import Broker
from agent.errors import UsageError
from agent.simulator.outage import Outage, parse_outage
from agent.simulator.verifier import SeqLedger, Verifier


def ledger(*seqs: int) -> SeqLedger:
    noted = SeqLedger()
    for seq in seqs:
        noted.note(seq)
    return noted


@pytest.mark.parametrize(
    ("seqs", "last", "missing"),
    [
        ((1, 2, 3), 3, 0),
        ((1, 3), 3, 1),
        ((2, 3), 3, 1),
        ((1, 2), 3, 1),
        ((), 3, 3),
        ((1, 1, 2, 2), 3, 1),
        ((3, 1, 2), 3, 0),
    ],
)
def test_what_is_missing_is_counted(seqs: tuple[int, ...], last: int, missing: int) -> None:
    assert ledger(*seqs).missing(0, last) == missing


def test_duplicates_and_disorder_are_counted_apart() -> None:
    noted = ledger(1, 2, 2, 5, 4, 4, 3, 1)
    assert (noted.received, noted.duplicates, noted.out_of_order) == (5, 3, 2)


def test_what_was_given_a_seq_before_does_not_count_and_all_after_it_does() -> None:
    assert ledger(41, 42, 44).missing(40, 44) == 1
    assert ledger().missing(40, 44) == 4, "nothing at all arrived"


def test_losses_are_summed_over_topics_and_what_can_not_be_read_is_counted() -> None:
    verifier = Verifier(Broker("mqtt://127.0.0.1"), "edgepost")
    for topic, seqs in {"edgepost/pi/telemetry/a": (1, 2, 4), "edgepost/pi/event/b": (1,)}.items():
        for seq in seqs:
            verifier._take(topic, json.dumps({"epoch": "e", "seq": seq}).encode())
    verifier._take("edgepost/pi/telemetry/a", b"\xff")
    verifier._take("edgepost/other/telemetry/a", b'{"epoch":"e","seq":1}')
    verifier._take("edgepost/pi/telemetry/a", b'{"epoch":"another","seq":1}')
    verifier._take("edgepost/pi/status", b'{"state":"online"}')
    last = {"telemetry/a": 4, "event/b": 2, "telemetry/never": 7}
    assert verifier.missing("edgepost/pi", "e", last, {}) == 1 + 1 + 7
    assert verifier.totals("edgepost/pi", "e") == {"received": 4, "duplicates": 0, "out_of_order": 0, "unreadable": 1}


def test_an_outage_is_read_and_nonsense_refused() -> None:
    assert parse_outage("5s..15s") == Outage(5.0, 15.0)
    for text in ("5s", "5..15", "15s..5s", "", "5s..5s", "a..b"):
        with pytest.raises(UsageError, match="--outage"):
            parse_outage(text)
