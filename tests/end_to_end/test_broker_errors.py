"""What keeps a broker from letting the agent in: a real mosquitto, real certificates, every error provoked for real.

Whatever is wrong, the agent keeps its queue, says what to do, and delivers everything once that is done.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.access import ANYBODY, SECRET, Place
from tests.brokers import LOCAL, MOSQUITTO, Mosquitto, Server, free_port
from tests.certificates import Authority, Pair
from tests.support import Agent, agent, edgepost, wait_until
from tests.witness import WINDOW, Witness, assert_nothing_lost, config, uplink_of, waiting, watched

pytestmark = pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")


@pytest.fixture
def place(short_dir: Path) -> Place:
    authority = Authority(short_dir / "authority")
    stranger = Authority(short_dir / "stranger", "stranger")
    return Place(short_dir, authority, stranger, Mosquitto(short_dir / "broker"), authority.issue("server"))


def delivers(process: Agent, witness: Witness, faults: int = 0) -> None:
    """The agent is connected, what it kept has arrived, and nobody has seen the secret."""
    wait_until(lambda: uplink_of(process).get("state") == "ok", f"it is let in: {uplink_of(process)}", 40)
    wait_until(lambda: witness.total() > 20, "telemetry", 40)
    assert_nothing_lost(process, [witness], duplicates=WINDOW * faults)
    assert SECRET not in process.log.read_text()


def complains(process: Agent, *words: str) -> None:
    """The agent says these words in its status and its log, and keeps what it reads."""

    def said() -> bool:
        return all(word in str(uplink_of(process).get("last_error")) for word in words)

    try:
        wait_until(said, "", 40)
    except AssertionError:
        raise AssertionError(f"expected {words}, found {uplink_of(process)}") from None
    assert uplink_of(process)["state"] == "failing"
    assert words[0] in process.log.read_text()
    before = waiting(process)
    wait_until(lambda: waiting(process) > before + 5, "the queue goes on")
    assert SECRET not in str(uplink_of(process))


def test_tls_with_an_own_ca_a_client_certificate_and_a_password_delivers(place: Place) -> None:
    device = place.authority.issue("device")
    place.broker.configure(*place.tls(None, *place.passwords(), "require_certificate true", "tls_version tlsv1.2"))
    keys = {
        "ca": place.authority.ca,
        "cert": device.cert,
        "key": device.key,
        "username": "me",
        "password_file": place.file("password", f"{SECRET}\n"),
    }
    text = config([place.broker.url("mqtts", "localhost")], **keys)
    with watched(place.broker) as (witness,), agent(place.home / "a", text) as process:
        delivers(process, witness)


def test_without_a_ca_the_system_s_authorities_count(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.broker.configure(*place.tls())
    url = place.broker.url("mqtts", "localhost")
    with watched(place.broker) as (witness,):
        with agent(place.home / "a", config([url])) as process:
            complains(process, "authority that is not known here", "mqtt.ca")
        monkeypatch.setenv("SSL_CERT_FILE", str(place.authority.ca))
        with agent(place.home / "a", config([url])) as process:
            delivers(process, witness)


class Fault(NamedTuple):
    """What is wrong at first, what the agent says of it, and what mends it while the agent runs."""

    scheme: str
    listener: tuple[str, ...]
    keys: dict[str, object]
    words: tuple[str, ...]
    mend: Callable[[], object]


def expired(place: Place) -> Fault:
    old = place.authority.issue("old", days=-1)
    words = ("the broker's certificate has expired", "clock")
    return Fault("mqtts", place.tls(old), {"ca": place.authority.ca}, words, lambda: place.broker.restart(*place.tls()))


def for_another_host(place: Place) -> Fault:
    other = place.authority.issue("other", "DNS:elsewhere.example")
    words = ("is for another host", "'localhost'", "mqtt.urls")
    mend = lambda: place.broker.restart(*place.tls())  # noqa: E731
    return Fault("mqtts", place.tls(other), {"ca": place.authority.ca}, words, mend)


def of_an_unknown_authority(place: Place) -> Fault:
    ca = place.file("ca.pem", place.stranger.ca)
    words = ("signed by an authority that is not known here", "mqtt.ca")
    return Fault("mqtts", place.tls(), {"ca": ca}, words, lambda: place.file("ca.pem", place.authority.ca))


def ca_that_is_no_certificate(place: Place) -> Fault:
    ca = place.file("ca.pem", "nothing of the kind")
    words = (f"mqtt.ca: {ca}: found no PEM", "expected a certificate")
    return Fault("mqtts", place.tls(), {"ca": ca}, words, lambda: place.file("ca.pem", place.authority.ca))


def wrong_password(place: Place) -> Fault:
    keys: dict[str, object] = {"username": "me", "password_file": place.file("password", f"{SECRET}, wrong\n")}
    words = ("refused us: Not authorized", "check username and password_file")
    return Fault("mqtt", place.passwords(), keys, words, lambda: place.file("password", f"{SECRET}\n"))


def password_that_is_no_text(place: Place) -> Fault:
    keys: dict[str, object] = {"username": "me", "password_file": place.file("password", "")}
    keys_file = place.file("password")
    keys_file.write_bytes(SECRET.encode() + b"\xff")
    words = ("found no UTF-8", str(keys_file))
    return Fault("mqtt", place.passwords(), keys, words, lambda: place.file("password", f"{SECRET}\n"))


def key_of_another_certificate(place: Place) -> Fault:
    device, other = place.authority.issue("device"), place.authority.issue("other")
    key = place.file("device.key", other.key)
    keys: dict[str, object] = {"ca": place.authority.ca, "cert": device.cert, "key": key}
    listener = place.tls(None, ANYBODY, "require_certificate true")
    words = (f"mqtt.key: {key}: does not belong to {device.cert}",)
    return Fault("mqtts", listener, keys, words, lambda: place.file("device.key", device.key))


def client_of_an_unknown_authority(place: Place) -> Fault:
    return _client(place, place.stranger.issue("device"), "does not know the authority that signed our certificate")


def client_whose_certificate_expired(place: Place) -> Fault:
    return _client(place, place.authority.issue("old", days=-1), "the broker says that our certificate has expired")


def _client(place: Place, wrong: Pair, words: str) -> Fault:
    right = place.authority.issue("device")
    cert, key = place.file("device.pem", wrong.cert), place.file("device.key", wrong.key)
    keys: dict[str, object] = {"ca": place.authority.ca, "cert": cert, "key": key}

    def mend() -> None:
        place.file("device.pem", right.cert)
        place.file("device.key", right.key)

    return Fault("mqtts", place.tls(None, ANYBODY, "require_certificate true"), keys, (words, "mqtt.cert"), mend)


def client_without_a_certificate(place: Place) -> Fault:
    listener = place.tls(None, ANYBODY, "require_certificate true")
    words = ("the broker wants a client certificate", "mqtt.cert", "mqtt.key")
    mend = lambda: place.broker.restart(*place.tls())  # noqa: E731
    return Fault("mqtts", listener, {"ca": place.authority.ca}, words, mend)


def tls_to_a_plain_port(place: Place) -> Fault:
    words = ("can't be reached: no TLS is spoken there", "mqtt://")
    mend = lambda: place.broker.restart(*place.tls())  # noqa: E731
    return Fault("mqtts", (ANYBODY,), {"ca": place.authority.ca}, words, mend)


def plain_to_a_tls_port(place: Place) -> Fault:
    words = ("before its CONNACK", "does it expect TLS (mqtts://")
    return Fault("mqtt", place.tls(), {}, words, lambda: place.broker.restart(ANYBODY))


FAULTS = [
    expired,
    for_another_host,
    of_an_unknown_authority,
    ca_that_is_no_certificate,
    wrong_password,
    password_that_is_no_text,
    key_of_another_certificate,
    client_of_an_unknown_authority,
    client_whose_certificate_expired,
    client_without_a_certificate,
    tls_to_a_plain_port,
    plain_to_a_tls_port,
]


@pytest.mark.parametrize("make", FAULTS, ids=lambda make: make.__name__.replace("_", " "))
def test_what_is_wrong_is_said_and_once_it_is_mended_everything_arrives(
    place: Place, make: Callable[[Place], Fault]
) -> None:
    fault = make(place)
    place.broker.configure(*fault.listener)
    text = config([place.broker.url(fault.scheme, "localhost")], **fault.keys)
    with watched(place.broker) as (witness,), agent(place.home / "a", text) as process:
        complains(process, *fault.words)
        fault.mend()
        delivers(process, witness)


@pytest.mark.parametrize("name", ["ca", "cert", "key", "password_file"])
def test_a_file_that_goes_away_is_named_and_is_used_again_when_it_is_back(place: Place, name: str) -> None:
    device = place.authority.issue("device")
    keys = {
        "ca": place.file("ca", place.authority.ca),
        "cert": place.file("cert", device.cert),
        "key": place.file("key", device.key),
        "username": "me",
        "password_file": place.file("password_file", SECRET),
    }
    place.broker.configure(*place.tls(None, *place.passwords(), "require_certificate true"))
    url = place.broker.url("mqtts", "localhost")
    with watched(place.broker) as (witness,), agent(place.home / "a", config([url], **keys)) as process:
        wait_until(lambda: uplink_of(process).get("state") == "ok", "it is connected at first", 40)
        path = place.file(name)
        path.rename(path.with_suffix(".away"))
        place.broker.restart(*place.tls(None, *place.passwords(), "require_certificate true"))
        complains(process, f"mqtt.{name}: {path}: can't be read: No such file")
        assert edgepost("check", "--config", process.config).returncode == 2
        path.with_suffix(".away").rename(path)
        delivers(process, witness, faults=1)


def test_tls_below_1_2_is_not_spoken(place: Place) -> None:
    port = free_port()
    old = [
        "-www",
        "-tls1_1",
        "-cipher",
        "DEFAULT@SECLEVEL=0",
        "-cert",
        str(place.server.cert),
        "-key",
        str(place.server.key),
    ]
    server = Server(["openssl", "s_server", "-accept", f"{LOCAL}:{port}", *old], place.home / "old", (LOCAL, port))
    try:
        server.start()
        text = config([f"mqtts://localhost:{port}"], ca=place.authority.ca)
        with agent(place.home / "a", text) as process:
            complains(process, "the broker does not speak TLS 1.2 or newer")
    finally:
        server.close()


def test_the_password_is_in_no_log_however_much_is_logged(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPOST_LOG", "DEBUG")
    for make in (wrong_password, password_that_is_no_text):
        fault = make(place)
        place.broker.configure(*fault.listener)
        text = config([place.broker.url()], **fault.keys)
        with watched(place.broker), agent(place.home / make.__name__, text) as process:
            complains(process, *fault.words)
            assert "where it failed" in process.log.read_text()
            assert SECRET not in process.log.read_text()
