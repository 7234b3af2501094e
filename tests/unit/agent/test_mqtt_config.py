"""`[mqtt]` is checked before anything is connected: addresses, files, and keys that belong together."""

from pathlib import Path

import pytest

from agent.config import load
from agent.delivery.mqtt import Broker, brokers
from agent.errors import ConfigError

SENSOR = '[[sensor]]\nname = "cpu"\ndriver = "cpu"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.toml"


def faults(file: Path, *lines: str) -> list[str]:
    file.write_text("[mqtt]\n" + "\n".join(lines) + "\n" + SENSOR, "utf-8")
    try:
        load(file)
    except ConfigError as error:
        return [fault.removeprefix(f"{file}:") for fault in error.faults]
    return []


def test_all_that_is_wrong_is_said_at_once_each_at_its_line(file: Path) -> None:
    found = faults(
        file,
        'urls = ["mqtt://broker"]',
        'username = "me"',
        f'ca = "{file.parent}/none.pem"',
        f'cert = "{file}"',
        f'password_fil = "{file}"',
        'keepalive = "200ms"',
    )
    expected = {
        "3: username": "found without password_file, expected both or neither",
        "4: ca: found": "none.pem', expected a file that can be read: No such file",
        "4: ca": "found with no address that uses TLS, expected mqtts:// or wss://",
        "5: cert": "found without key, expected both or neither",
        "6: password_fil": "unknown key, did you mean password_file?",
        "7: keepalive": "found 0.2 s, expected 1s to 65535s",
    }
    for place, words in expected.items():
        assert any(fault.startswith(place) and words in fault for fault in found), (place, words, found)


@pytest.mark.parametrize("name", ["ca", "cert", "key", "password_file"])
def test_a_directory_is_no_file(file: Path, name: str) -> None:
    found = faults(file, 'urls = ["mqtts://broker"]', f'{name} = "{file.parent}"')
    assert any(f"{name}: found '{file.parent}', expected a file that can be read: Is a dir" in f for f in found), found


@pytest.mark.parametrize(("one", "other"), [("key", "cert"), ("password_file", "username")])
def test_what_makes_sense_in_pairs_alone_is_refused_alone(file: Path, one: str, other: str) -> None:
    (found,) = faults(file, 'urls = ["mqtts://broker"]', f'{one} = "{file}"')
    assert f"{one}: found without {other}, expected both or neither" in found


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker/path", "expected mqtt://host[:port]"),
        ("wss://broker/mqtt?token=secret", "expected wss://host[:port][/path]"),
        ("ws://broker/mqtt#secret", "expected ws://host[:port][/path]"),
        ("mqtt://broker:99999", "expected mqtt|mqtts|ws|wss://host[:port]"),
    ],
)
def test_an_address_that_no_connection_can_use_is_refused_and_no_secret_repeated(
    file: Path, url: str, expected: str
) -> None:
    (found,) = faults(file, f'urls = ["{url}"]')
    assert expected in found
    assert "secret" not in found


def test_empty_files_are_none_and_good_ones_reach_every_broker_in_order(file: Path) -> None:
    urls = ["mqtts://one", "wss://two:9001/fleet/mqtt", "ws://[::1]"]
    own = [f'{name} = "{file}"' for name in ("cert", "key", "password_file")]
    assert faults(file, f"urls = {urls!r}", 'ca = ""', 'username = "me"', *own) == []
    found = brokers(load(file).mqtt)
    same = {"username": "me", "password_file": str(file), "ca": "", "cert": str(file), "key": str(file)}
    assert found == [Broker(url, **same) for url in urls]
    assert [broker.parts for broker in found] == [
        ("mqtts", "one", 8883, "/mqtt"),
        ("wss", "two", 9001, "/fleet/mqtt"),
        ("ws", "::1", 80, "/mqtt"),
    ]
