import re
import statistics

import pytest

from drivers.models.wxt520 import Wxt520Transmitter


def value(reply, name):
    return float(re.search(rf"\b{name}=(-?[\d.]+)", reply.decode())[1])


def test_the_composite_message_has_the_form_of_the_users_guide():
    reply = Wxt520Transmitter(0).step(b"0R0\r\n", 0.0)
    assert re.fullmatch(rb"0R0(,[A-Z][a-z]=-?\d+(\.\d+)?[A-Za-z])+\r\n", reply)


@pytest.mark.parametrize("command", [b"?", b"0"])
def test_it_tells_its_address(command):
    assert Wxt520Transmitter(0).step(command + b"\r\n", 0.0) == b"0\r\n"


def test_it_is_silent_to_another_address():
    assert Wxt520Transmitter(0).step(b"1R0\r\n", 0.0) == b""


def test_an_unknown_command_is_answered_as_such():
    assert Wxt520Transmitter(0).step(b"0Q9\r\n", 0.0) == b"0TX,Unknown cmd error\r\n"


def test_a_command_may_come_in_pieces_and_with_others():
    transmitter = Wxt520Transmitter(0)
    assert transmitter.step(b"0R", 0.0) == b""
    assert transmitter.step(b"2\r", 0.1) == b""
    replies = transmitter.step(b"\n0R1\r\n", 0.2).split(b"\r\n")
    assert [reply[:3] for reply in replies] == [b"0R2", b"0R1", b""]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    runs = [Wxt520Transmitter(seed).step(b"0R0\r\n", 60.0) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_days_are_warmer_and_drier_than_nights():
    transmitter = Wxt520Transmitter(0)

    def mean(name, hour):
        times = range(hour * 3600, hour * 3600 + 600, 60)
        return statistics.mean(value(transmitter.step(b"0R2\r\n", t), name) for t in times)

    afternoon, night = 7, 19  # hours after eight in the morning
    assert mean("Ta", afternoon) > mean("Ta", night) + 5
    assert mean("Ua", afternoon) < mean("Ua", night) - 10


def test_rain_only_ever_adds_up():
    transmitter = Wxt520Transmitter(0)
    rain = [value(transmitter.step(b"0R3\r\n", t), "Rc") for t in range(0, 3 * 3600, 300)]
    assert rain == sorted(rain)
    assert rain[-1] > 0
