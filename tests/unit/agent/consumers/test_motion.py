import threading

import pytest

from agent.consumers import motion
from agent.consumers.post import NoAnswer, PostFailed
from agent.frames import FrameReader
from agent.frames.ring import RingWriter
from drivers.contract import Capture, FrameFormat
from tests.frames import runtime_in_memory
from tests.support import wait_until


class Agent:
    """Stands in for the poster: fails as told, else keeps what was posted."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.posted = []

    def post(self, source, kind, data, *, ts_ms, timeout_s):
        if self.failures:
            raise self.failures.pop(0)
        self.posted.append((source, kind, data["state"], data["seq"], ts_ms))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def ring():
    with runtime_in_memory() as runtime:
        writer = RingWriter(runtime / "frames", "gate", FrameFormat(320, 240), 4)
        writer.open()
        yield writer
        writer.close()


def show(ring, number, square):
    with ring.slot() as slot:
        slot.image[:] = 90
        if square:
            slot.image[60:140, 10 + number % 100 * 3 :][:, :60] = 230
        return slot.publish(Capture(number, number * 1_000_000)).seq


def test_what_moves_is_found_where_it_is(ring):
    finder = motion.Motion(0.005)
    with FrameReader("gate", runtime_dir=ring.path.parents[1], timeout_s=20) as frames:
        for number in range(30):
            show(ring, number, square=False)
            assert finder.boxes(frames.read()) == []
            frames._held.copy().pop().release()
        show(ring, 20, square=True)
        ((left, top, width, height),) = finder.boxes(frames.read())
        assert (left, top, width, height) == pytest.approx((70, 60, 60, 80), abs=8)


def test_motion_is_posted_once_at_its_start_and_once_at_its_end(ring, monkeypatch):
    agent, stop = Agent(), threading.Event()
    monkeypatch.setattr(motion, "EventPoster", lambda _: agent)
    monkeypatch.setattr(motion, "_QUIET_S", 0.2)
    thread = threading.Thread(target=motion.watch, args=("gate", ring.path.parents[1], 0.005, stop))
    thread.start()
    numbers = iter(range(100_000))

    def states(square):
        show(ring, next(numbers), square=square)
        return [state for _, _, state, *_ in agent.posted]

    for _ in range(60):
        wait_until(lambda: states(False) == [], "quiet")
        stop.wait(0.005)
    wait_until(lambda: states(True) == ["started"], "the start")
    wait_until(lambda: states(False) == ["started", "ended"], "the end")
    stop.set()
    thread.join()
    source, kind, _, seq, ts_ms = agent.posted[0]
    assert (source, kind, ts_ms) == ("gate", "motion", float(seq))


def test_events_wait_for_an_agent_that_is_away_and_a_refused_one_holds_up_nothing(ring, monkeypatch):
    monkeypatch.setattr(motion, "_RETRY_S", 0.0)
    agent = Agent(NoAnswer("away"), NoAnswer("away"), PostFailed("no such source"))
    outbox = motion.Outbox(agent, "gate")
    with FrameReader("gate", runtime_dir=ring.path.parents[1], timeout_s=20) as frames:
        for _ in range(3):
            show(ring, 1, square=False)
            with frames.read() as frame:
                outbox.put("started", frame, [])
    for _ in range(3):
        outbox.post()
    assert [seq for *_, seq, _ in agent.posted] == [1, 2]
