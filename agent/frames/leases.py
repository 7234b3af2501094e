"""What the kernel lends to the ring: byte-range locks that die with their holder, and a doorbell that can be waited on.

Locks are those of `F_OFD_SETLK`: they belong to the open file, not to the process, so threads and libraries of one
process don't lose each other's, and the kernel drops them when the last descriptor goes, however the process ended.
Where there are none (macOS), every lock is granted, and the generations alone tell a torn frame.

Waiting is a futex on the mapped doorbell. Where there is none (another system or processor, a sandbox that refuses
the call), `wait` looks at the doorbell every 2 ms, and `wake` does nothing.

Memory order. On x86 stores are seen in the order they were made, and loads are made in order; ARM promises neither.
- A locked frame needs no more than the lock: the writer's unlock and the reader's lock take the same spin lock in the
  kernel, so who gets the lease after the writer let go sees all it stored before, on any processor.
- What is seen without a lock is ordered by `fence()` on both sides. Writer: generation odd, fence, pixels and fields,
  fence, generation even; then newest, fence, doorbell. Reader: doorbell, fence, newest, generation, fence, fields and
  pixels, fence, generation again. So who sees a changed doorbell sees the frame it stands for, and who has loaded one
  byte of a later frame sees that the generation has moved on.
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct
import threading
import time

HAVE_LOCKS = hasattr(fcntl, "F_OFD_SETLK")
_POLL_S = 0.002
_FUTEX_WAIT = 0  # not the private kind: waiters are other processes
_FUTEX_WAKE = 1


def lock_shared(fd: int, offset: int) -> bool:
    """Take a reader's lease on the byte at `offset`, without waiting; False when a writer has it."""
    return _lock(fd, fcntl.F_RDLCK, offset)


def lock_exclusive(fd: int, offset: int) -> bool:
    """Take the writer's lease on the byte at `offset`, without waiting; False while a reader has one."""
    return _lock(fd, fcntl.F_WRLCK, offset)


def unlock(fd: int, offset: int) -> None:
    """Give up the lease on the byte at `offset`."""
    _lock(fd, fcntl.F_UNLCK, offset)


def fence() -> None:
    """Order all loads and stores before it before all that follow.

    A release of a lock followed by an acquire is not reordered on any processor (on ARM both are RCsc). The first
    acquire and the last release only frame these two. The lock is nobody else's, so a signal handler may come here too.
    """
    lock = threading.Lock()
    with lock:
        pass
    with lock:
        pass


def wait(address: int, expected: int, timeout_s: float) -> None:
    """Sleep while the u32 at `address` is `expected`, for at most `timeout_s` seconds. May return early: look again.

    A signal ends it too, so that Python runs its handlers. The GIL is free meanwhile.
    """
    if _FUTEX is None:
        _poll(address, expected, timeout_s)
        return
    timeout = _Timespec(int(timeout_s), int(timeout_s % 1 * 1e9))
    if _syscall(_FUTEX, address, _FUTEX_WAIT, expected, ctypes.byref(timeout), None, 0) < 0:
        reason = ctypes.get_errno()
        if reason not in {errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR}:
            _poll(address, expected, timeout_s)


def wake(address: int) -> None:
    """Wake everyone who waits on the u32 at `address`."""
    if _FUTEX is not None:
        _syscall(_FUTEX, address, _FUTEX_WAKE, 0x7FFFFFFF, None, None, 0)


def _lock(fd: int, kind: int, offset: int) -> bool:
    if not HAVE_LOCKS:
        return True
    # struct flock as the C compiler lays it out: type, whence, start, length, pid (must be 0), padded to its end.
    # Python is built with a 64-bit off_t, and on 32-bit machines too the kernel takes the 64-bit form for this command.
    request = struct.pack("@hhqqi0q", kind, os.SEEK_SET, offset, 1, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: held by another
        return False
    return True


def _poll(address: int, expected: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    word = ctypes.c_uint32.from_address(address)
    while word.value == expected and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, _POLL_S))


class _Timespec(ctypes.Structure):
    _fields_ = (
        ("tv_sec", ctypes.c_long),
        ("tv_nsec", ctypes.c_long),
    )  # as the call of this number takes it, also on ARM


def _futex_number() -> int | None:
    """The system call's number, by processor and by the width of this program (32-bit ones run on 64-bit kernels)."""
    if platform.system() != "Linux":
        return None
    machine, bits = platform.machine(), struct.calcsize("P") * 8
    if machine.startswith(("arm", "aarch64")):
        return 98 if bits == 64 else 240
    return 202 if (machine, bits) == ("x86_64", 64) else None


_FUTEX = _futex_number()
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong,
)  # fmt: skip
