import json
import threading
from contextlib import contextmanager

import pytest
import zmq

from agent.consumers.post import EventPoster, NoAnswer, PostFailed
from agent.errors import EdgepostError
from agent.paths import ingest_address


@contextmanager
def answering(runtime, answers):
    """Stands in for the agent: answers with the next of `answers`, None with silence; yields the requests."""
    heard = []
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    socket.linger = 0
    socket.bind(ingest_address(runtime))

    def serve():
        for answer in answers:
            if not socket.poll(20_000):
                return
            who, request = socket.recv_multipart()
            heard.append(json.loads(request))
            if answer is not None:
                socket.send_multipart([who, answer])

    thread = threading.Thread(target=serve)
    thread.start()
    yield heard
    thread.join()
    socket.close()


def test_an_event_is_posted_and_its_place_returned(tmp_path):
    with answering(tmp_path, [b'{"ok":true,"epoch":"9f","seq":7}'] * 2) as heard, EventPoster(tmp_path) as agent:
        assert agent.post("gate", "motion", {"a": 1}, ts_ms=12.5) == ("9f", 7)
        assert agent.post("gate", "motion", {}) == ("9f", 7)
    assert heard[0] == {"source": "gate", "type": "motion", "data": {"a": 1}, "ts": 12.5}
    assert "ts" not in heard[1]


def test_a_refusal_says_why(tmp_path):
    with (
        answering(tmp_path, [b'{"ok":false,"error":"queue is full"}', b"hello"]),
        EventPoster(tmp_path) as agent,
    ):
        with pytest.raises(PostFailed, match="queue is full"):
            agent.post("gate", "motion", {})
        with pytest.raises(PostFailed, match="no reply"):
            agent.post("gate", "motion", {})


def test_a_late_answer_is_not_taken_for_that_of_the_next_event(tmp_path):
    with EventPoster(tmp_path) as agent:
        with pytest.raises(NoAnswer, match="is the agent running"):
            agent.post("gate", "motion", {}, timeout_s=0.05)
        with answering(tmp_path, [None, b'{"ok":true,"epoch":"9f","seq":2}']) as heard:
            with pytest.raises(NoAnswer):
                agent.post("gate", "motion", {"n": 1}, timeout_s=1)
            assert agent.post("gate", "motion", {"n": 2}, timeout_s=20) == ("9f", 2)
    assert [each["data"] for each in heard] == [{"n": 1}, {"n": 2}]


def test_a_path_too_long_for_a_socket_is_told(tmp_path):
    with pytest.raises(EdgepostError, match="too long"):
        EventPoster(tmp_path / ("x" * 120))
