import pytest

from drivers.contract import BadData, DeviceAbsent
from drivers.registry import Buses
from drivers.sensors.network import Network, NetworkSettings

DEV_HEADINGS = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast"
    "|bytes    packets errs drop fifo colls carrier compressed\n"
)
ROUTE_HEADINGS = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def default_route(interface, metric=0, flags="0003"):
    return f"{interface}\t00000000\t0101A8C0\t{flags}\t0\t0\t{metric}\t00000000\t0\t0\t0\n"


@pytest.fixture
def dev(write):
    """Write /proc/net/dev from {interface: (received, sent)} in bytes."""

    def write_dev(**interfaces):
        lines = [f"{name:>6}: {rx} 5 1 2 0 0 0 0 {tx} 6 3 4 0 0 0 0\n" for name, (rx, tx) in interfaces.items()]
        write("proc/net/dev", DEV_HEADINGS + "".join(lines))

    return write_dev


@pytest.fixture
def network(tmp_path, clock):
    def make(interface=None):
        return Network(NetworkSettings(interface=interface), Buses(tmp_path), monotonic=clock)

    return make


def rates(sensor):
    values = sensor.read()[0].values
    return values.get("rx_rate"), values.get("tx_rate")


def test_rates_are_bytes_over_the_time_between_two_readings(network, dev, clock):
    sensor = network("eth0")
    dev(lo=(9, 9), eth0=(1000, 5000))
    sensor.open()
    assert rates(sensor) == (None, None)
    dev(lo=(99999, 99999), eth0=(3000, 5500))
    clock.now_s += 10
    assert rates(sensor) == (200.0, 50.0)


def test_errors_and_drops_are_what_the_kernel_counted(network, dev):
    dev(eth0=(1, 1))
    assert network("eth0").read()[0].values == {"rx_errors": 1, "rx_drops": 2, "tx_errors": 3, "tx_drops": 4}


def test_the_default_is_the_interface_of_the_default_route_with_the_lowest_metric(network, dev, write, clock):
    write(
        "proc/net/route",
        ROUTE_HEADINGS + default_route("wlan0", 600) + default_route("eth0", 100) + default_route("down0", 1, "0002"),
    )
    sensor = network()
    dev(lo=(0, 0), eth0=(0, 0), wlan0=(0, 0), down0=(0, 0))
    sensor.read()
    dev(lo=(1, 1), eth0=(100, 200), wlan0=(7, 7), down0=(7, 7))
    clock.now_s += 10
    assert rates(sensor) == (10.0, 20.0)


def test_without_a_default_route_all_interfaces_but_lo_are_added_up(network, dev, clock):
    sensor = network()
    dev(lo=(0, 0), eth0=(0, 0), wlan0=(0, 0))
    sensor.read()
    dev(lo=(5000, 5000), eth0=(100, 200), wlan0=(300, 400))
    clock.now_s += 10
    assert rates(sensor) == (40.0, 60.0)


def test_no_rate_is_made_up_when_the_default_route_moves(network, dev, write, clock):
    sensor = network()
    dev(eth0=(0, 0), wlan0=(10**9, 10**9))
    write("proc/net/route", ROUTE_HEADINGS + default_route("eth0"))
    sensor.read()
    write("proc/net/route", ROUTE_HEADINGS + default_route("wlan0"))
    clock.now_s += 10
    assert rates(sensor) == (None, None)


def test_no_rate_is_made_up_when_an_interface_was_taken_away_and_came_back(network, dev, clock):
    sensor = network("usb0")
    dev(usb0=(5000, 5000))
    sensor.read()
    dev(usb0=(10, 6000))
    clock.now_s += 10
    assert rates(sensor) == (None, None)


def test_an_interface_that_is_not_there_is_named_at_open(network, dev):
    dev(eth0=(0, 0))
    with pytest.raises(DeviceAbsent, match="eth7"):
        network("eth7").open()


def test_damaged_counters_are_bad_data(network, write):
    write("proc/net/dev", DEV_HEADINGS + "  eth0: 1 2 x\n")
    with pytest.raises(BadData, match="16 counters"):
        network("eth0").read()
