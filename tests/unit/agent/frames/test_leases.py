import ctypes
import os
import threading

import pytest

from agent.frames import leases


@pytest.fixture
def three_openings(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    fds = [os.open(path, os.O_RDWR) for _ in range(3)]
    yield fds
    for fd in fds:
        os.close(fd)


def test_readers_share_a_byte_and_keep_the_writer_off_it(three_openings):
    writer, reader, other = three_openings
    assert leases.lock_shared(reader, 4096)
    assert leases.lock_shared(other, 4096)
    leases.unlock(reader, 4096)
    assert not leases.lock_exclusive(writer, 4096)
    assert leases.lock_exclusive(writer, 4160)
    leases.unlock(other, 4096)
    assert leases.lock_exclusive(writer, 4096)
    assert not leases.lock_shared(reader, 4096)


def test_a_lease_belongs_to_the_opening_and_goes_with_it(three_openings):
    writer, reader, other = three_openings
    assert leases.lock_shared(os.dup(reader), 4096)
    os.close(other)  # a POSIX lock would be lost here: the same process closes the same file
    three_openings[2] = os.open(f"/proc/self/fd/{writer}", os.O_RDONLY)
    assert not leases.lock_exclusive(writer, 4096)
    leases.unlock(reader, 4096)
    assert leases.lock_exclusive(writer, 4096)


@pytest.fixture(params=["futex", "polling"])
def word(request, monkeypatch):
    if request.param == "polling":
        monkeypatch.setattr(leases, "_FUTEX", None)
    elif leases._FUTEX is None:
        pytest.skip("no futex on this system")
    return ctypes.c_uint32(5)


def test_a_wait_ends_when_the_word_has_changed_already(word):
    leases.wait(ctypes.addressof(word), 4, timeout_s=60)


def test_a_wait_ends_after_its_time(word):
    leases.wait(ctypes.addressof(word), 5, timeout_s=0.01)


def test_a_waiter_is_woken_while_other_threads_run(word):
    address = ctypes.addressof(word)
    woken = threading.Event()

    def wait():
        while word.value == 5:
            leases.wait(address, 5, timeout_s=60)
        woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not woken.wait(0.05)
    word.value = 6
    while not woken.wait(0.01):  # it may not have slept yet when we woke
        leases.wake(address)
    thread.join()


@pytest.mark.parametrize(
    ("machine", "bits", "number"),
    [
        ("x86_64", 64, 202),
        ("aarch64", 64, 98),
        ("aarch64", 32, 240),
        ("armv7l", 32, 240),
        ("armv6l", 32, 240),
        ("sparc", 64, None),
    ],
)
def test_the_call_is_that_of_the_program_not_of_the_kernel(monkeypatch, machine, bits, number):
    monkeypatch.setattr(leases.platform, "machine", lambda: machine)
    monkeypatch.setattr(leases.struct, "calcsize", lambda _: bits // 8)
    assert leases._futex_number() == number
