"""The line against real kernel ptys, and for the network against a real socket."""

import errno
import grp
import os
import pwd
import socket
import stat
import threading
from pathlib import Path

import pytest

from drivers.buses.serial_port import SerialPort
from drivers.contract import DeviceAbsent, DriverError

WAIT_S = 10


@pytest.fixture
def port(pty):
    port = SerialPort(pty.path, 9600)
    port.open()
    yield port
    port.close()


def in_thread(function):
    """Run in a thread; `join` returns what was raised or returned, and fails when it does not end."""
    outcome = []

    def run():
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join():
        thread.join(WAIT_S)
        assert outcome, "the thread did not end"
        return outcome[0]

    return join


def blocked_reader(port):
    """A thread that waits in the line: `join` of `in_thread`, once it holds the line."""
    join = in_thread(lambda: port.read_line(600))
    for _ in range(1000):
        if port._in_use.locked():
            return join
        threading.Event().wait(0.01)
    pytest.fail("the reader never began")


def test_lines_come_without_their_ends(port, pty):
    pty.send(b"one\r\ntwo\n\r\n")
    assert [port.read_line(WAIT_S) for _ in range(3)] == [b"one", b"two", b""]


def test_half_a_line_is_kept_for_the_next_call(port, pty):
    pty.send(b"hal")
    assert port.read_line(0.2) is None
    pty.send(b"f\n")
    assert port.read_line(WAIT_S) == b"half"


def test_with_no_time_to_wait_it_takes_what_is_there(port, pty):
    assert port.read_line(0) is None
    pty.send(b"there\n")
    assert port.read_line(0) == b"there"


def test_a_line_that_is_too_long_is_thrown_away_and_counted_once(port, pty):
    for _ in range(5):
        pty.send(b"x" * 50)
        assert port.read_line(0.1, max_bytes=64) is None
    pty.send(b"x\ngood\n" + b"y" * 65 + b"\n" + b"z" * 64 + b"\n")
    assert port.read_line(WAIT_S, max_bytes=64) == b"good"
    assert port.read_line(WAIT_S, max_bytes=64) == b"z" * 64
    assert port.overlong_lines == 2


def test_what_is_written_arrives(port, pty):
    port.write(b"0R0\r\n")
    assert os.read(pty.far, 100) == b"0R0\r\n"


def test_discarded_input_is_never_read(port, pty):
    pty.send(b"old\nold half")
    assert port.read_line(WAIT_S) == b"old"
    port.discard_input()
    pty.send(b"new\n")
    assert port.read_line(WAIT_S) == b"new"


def test_nothing_is_touched_before_open():
    SerialPort("/dev/there-is-no-such-device", 9600).close()


def test_open_and_close_can_be_repeated(pty):
    port = SerialPort(pty.path, 9600)
    for _ in range(2):
        port.open()
        port.open()
        pty.send(b"line\n")
        assert port.read_line(WAIT_S) == b"line"
        port.close()
        port.close()


def test_what_was_received_before_close_is_forgotten(port, pty):
    pty.send(b"old half")
    assert port.read_line(0.2) is None
    port.close()
    port.open()
    pty.send(b"new\n")
    assert port.read_line(WAIT_S) == b"new"


def test_a_missing_device_is_absent_and_can_be_closed():
    port = SerialPort("/dev/there-is-no-such-device", 9600)
    with pytest.raises(DeviceAbsent, match=r"/dev/there-is-no-such-device: .* is it plugged in"):
        port.open()
    port.close()


def test_a_line_that_another_holds_is_refused_and_named(port, pty):
    with pytest.raises(DriverError, match=f"{pty.path}: another program holds it"):
        SerialPort(pty.path, 9600).open()


def test_what_is_no_serial_line_is_refused(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    with pytest.raises(DriverError, match="can't be opened as a serial line"):
        SerialPort(str(plain), 9600).open()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the node to a group")
def test_a_node_that_may_not_be_opened_names_the_group_that_owns_it(pty):
    os.chown(pty.path, -1, grp.getgrnam("dialout").gr_gid)
    refused = SerialPort(pty.path, 9600)._refused(PermissionError(errno.EACCES, "Permission denied"))
    assert "`sudo usermod -aG dialout $USER`" in str(refused)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not open the node")
def test_permission_denied_is_told_as_such(pty):
    Path(pty.path).chmod(stat.S_IRUSR | stat.S_IWUSR)
    child = os.fork()
    if not child:
        os.setuid(pwd.getpwnam("nobody").pw_uid)
        try:
            SerialPort(pty.path, 9600).open()
        except DriverError as error:
            os._exit(0 if "permission denied" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("use", [lambda port: port.read_line(0), lambda port: port.write(b"x")])
def test_a_line_that_is_not_open_says_so(pty, use):
    with pytest.raises(DriverError, match="is not open"):
        use(SerialPort(pty.path, 9600))


@pytest.mark.parametrize(
    "use", [lambda port: port.read_line(0), lambda port: port.write(b"x"), lambda port: port.discard_input()]
)
def test_a_device_that_was_unplugged_is_absent(port, pty, use):
    pty.unplug()
    with pytest.raises(DeviceAbsent, match="went away"):
        use(port)


def test_unplugging_ends_a_read_that_waits(port, pty):
    join = blocked_reader(port)
    pty.unplug()
    assert isinstance(join(), DeviceAbsent)


def test_close_ends_a_read_that_waits_in_another_thread(port):
    join = blocked_reader(port)
    port.close()
    assert isinstance(join(), DriverError)


def test_close_ends_a_write_that_waits_in_another_thread(port):
    join = in_thread(lambda: port.write(b"x" * 1_000_000))  # nobody reads the far end
    while not port._in_use.locked():
        threading.Event().wait(0.01)
    port.close()
    join()
    with pytest.raises(DriverError, match="is not open"):
        port.write(b"x")


def test_many_threads_may_close_at_once(port):
    reader = blocked_reader(port)
    joins = [in_thread(port.close) for _ in range(8)]
    assert [join() for join in joins] == [None] * 8
    assert isinstance(reader(), DriverError)


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(WAIT_S)
        yield listening


def test_a_network_line_reads_writes_and_ends_like_a_device(server):
    port = SerialPort(f"socket://127.0.0.1:{server.getsockname()[1]}", 9600)
    port.open()
    far, _ = server.accept()
    with far:
        far.sendall(b"hello\r\n")
        assert port.read_line(WAIT_S) == b"hello"
        port.write(b"there\n")
        assert far.recv(100) == b"there\n"
    with pytest.raises(DeviceAbsent, match="went away"):
        port.read_line(WAIT_S)
    port.close()


def test_close_ends_a_read_that_waits_on_a_network_line(server):
    port = SerialPort(f"socket://127.0.0.1:{server.getsockname()[1]}", 9600)
    port.open()
    far, _ = server.accept()
    with far:
        join = blocked_reader(port)
        port.close()
        assert isinstance(join(), DriverError)


def test_a_host_that_does_not_answer_is_absent(server):
    address = f"socket://127.0.0.1:{server.getsockname()[1]}"
    server.close()
    with pytest.raises(DeviceAbsent, match="is the host up"):
        SerialPort(address, 9600).open()


@pytest.mark.parametrize("address", ["nonsense://host:1", "socket://host:port"])
def test_an_address_that_makes_no_sense_is_refused(address):
    with pytest.raises(DriverError, match="host"):
        SerialPort(address, 9600).open()
