"""`edgepost queue` beside a running agent and without one: no message is lost, doubled or renamed by it."""

import json
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.clock import Clock
from agent.control_socket import MAX_REQUEST_BYTES
from agent.delivery.disk_queue import DiskQueue, inspect
from agent.delivery.record import Lane, Telemetry
from agent.health import PartHealth
from agent.lock import lock
from agent.paths import make_private
from agent.simulator.broker import OwnBroker
from tests.support import Agent, agent, edgepost, receiver, wait_until

QUIET = """
[device]
id = "pi"
[mqtt]
urls = ["{url}"]
[[sensor]]
name = "never"
driver = "gps"
device = "/dev/no-such-device"
"""
NOWHERE = QUIET.format(url="mqtt://127.0.0.1:9")
MESSAGES = 30


@pytest.fixture
def home(short_dir: Path) -> Path:
    """Directories of an agent that is not running; its queue holds 1 to MESSAGES, of which 1 and 2 are dead."""
    queue = DiskQueue(make_private(short_dir / "a/data") / "queue", PartHealth("queue"), max_bytes=2**28)
    queue.open()
    assert queue.put([Telemetry("gps", [(Clock().now(), {"n": n})]) for n in range(1, MESSAGES + 1)]).wait(10)
    for entry in queue.peek(Lane.TELEMETRY, 0, 2):
        assert queue.reject(entry.key, "too large").wait(10)
    queue.close()
    return short_dir / "a"


def queue(home: Path, action: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    changes = action in {"dead", "import", "drop"}
    runtime = ["--runtime-dir", home / "run"] if changes else []
    done = edgepost("queue", action, "--data-dir", home / "data", *runtime, *arguments)
    assert "Traceback" not in done.stderr
    return done


def must(home: Path, action: str, *arguments: object) -> str:
    done = queue(home, action, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def peeked(home: Path) -> list[int]:
    return [row["seq"] for row in json.loads(must(home, "peek", "--limit", 10_000, "--json"))]


def answers(process: Agent) -> None:
    wait_until(process.status, "the agent answers")


def test_a_requeued_dead_message_arrives_under_its_old_seq(home: Path, broker: OwnBroker) -> None:
    epoch = inspect(home / "data/queue").epoch
    with receiver(broker.url) as subscriber, agent(home, QUIET.format(url=broker.url)) as process:
        wait_until(lambda: len(subscriber.seqs("telemetry/gps")) == MESSAGES - 2, "the backlog")
        answers(process)
        assert "1 messages wait again" in must(home, "dead", "--requeue", 2)
        wait_until(lambda: 2 in subscriber.seqs("telemetry/gps"), "the message")
        assert [row["seq"] for row in json.loads(must(home, "dead", "--json"))] == [1]
    arrived = [body for body in subscriber.bodies("telemetry/gps") if body["seq"] == 2]
    assert [(body["epoch"], body["readings"][0]["values"]) for body in arrived] == [(epoch, {"n": 2})]


def test_a_message_requeued_without_an_agent_arrives_from_the_next(home: Path, broker: OwnBroker) -> None:
    assert "2 messages wait again" in must(home, "dead", "--requeue", "all")
    with receiver(broker.url) as subscriber, agent(home, QUIET.format(url=broker.url)):
        wait_until(lambda: len(subscriber.seqs("telemetry/gps")) == MESSAGES, "everything")
    assert subscriber.seqs("telemetry/gps") == [*range(3, MESSAGES + 1), 1, 2]


@pytest.mark.parametrize("running", [True, False], ids=["beside an agent", "without an agent"])
def test_export_drop_import_and_everything_arrives_once(home: Path, broker: OwnBroker, running: bool) -> None:
    file = home / "out.jsonl"

    def round_trip() -> None:
        assert f"{MESSAGES - 2} messages" in must(home, "export", file)
        assert f"{MESSAGES - 2} messages were deleted" in must(home, "drop", "--yes")
        assert peeked(home) == []
        assert f"{MESSAGES - 2} messages were imported" in must(home, "import", file)

    if running:
        with agent(home, NOWHERE) as process:
            answers(process)
            round_trip()
            assert process.status()["queue"]["dropped"] == {"telemetry/dropped_by_user": MESSAGES - 2}
            assert process.terminate() == 0
    else:
        round_trip()
    with receiver(broker.url) as subscriber, agent(home, QUIET.format(url=broker.url)) as process:
        wait_until(lambda: len(subscriber.seqs("telemetry/gps")) >= MESSAGES - 2, "everything")
        assert process.terminate() == 0
    assert subscriber.seqs("telemetry/gps") == list(range(3, MESSAGES + 1))


def test_kill_9_of_the_agent_between_the_commands_loses_nothing(home: Path, broker: OwnBroker) -> None:
    file = home / "out.jsonl"
    with agent(home, NOWHERE) as process:
        answers(process)
        must(home, "export", file)
        must(home, "drop", "--yes")
        process.kill()
    assert peeked(home) == []
    must(home, "import", file)  # the dead agent's socket is still there
    with agent(home, NOWHERE) as process:
        answers(process)
        must(home, "dead", "--requeue", "all")
        process.kill()
    with receiver(broker.url) as subscriber, agent(home, QUIET.format(url=broker.url)):
        wait_until(lambda: len(subscriber.seqs("telemetry/gps")) >= MESSAGES, "everything")
    assert subscriber.seqs("telemetry/gps") == [*range(3, MESSAGES + 1), 1, 2]


@pytest.mark.parametrize("running", [True, False], ids=["beside an agent", "without an agent"])
def test_of_two_commands_at_once_each_message_obeys_one(home: Path, running: bool) -> None:
    process = Agent(home, NOWHERE) if running else None
    try:
        if process:
            answers(process)
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda _: queue(home, "dead", "--requeue", "1"), range(4)))
        assert sorted(each.returncode for each in done) == [0, 1, 1, 1]
        assert sum("there is no dead message 1" in each.stderr for each in done) == 3
        assert sorted(peeked(home)) == [1, *range(3, MESSAGES + 1)]
    finally:
        if process:
            process.close()


def test_peek_shows_the_oldest_first_and_says_how_many_more(home: Path) -> None:
    lines = must(home, "peek", "--limit", 3).splitlines()
    assert lines[0].split() == ["LANE", "TOPIC", "EPOCH", "SEQ", "AGE_S", "BYTES"]
    assert [line.split()[3] for line in lines[1:4]] == ["3", "4", "5"]
    assert lines[4] == f"3 of {MESSAGES - 2}: see more with --limit"
    (first,) = json.loads(must(home, "peek", "--limit", 1, "--json"))
    assert first["record"]["readings"][0]["values"] == {"n": 3}
    assert must(home, "peek", "--lane", "event") == "nothing waits\n"


def test_dead_shows_why_and_delete_forgets(home: Path) -> None:
    lines = must(home, "dead").splitlines()
    assert lines[1].split()[:4] == ["1", "too", "large", "telemetry/gps"]
    must(home, "dead", "--delete", 1)
    assert [row["number"] for row in json.loads(must(home, "dead", "--json"))] == [2]
    file = home / "dead.jsonl"
    must(home, "export", file, "--dead")
    assert json.loads(file.read_text())["reason"] == "too large"
    must(home, "import", file)
    assert peeked(home)[-1] == 2


def test_drop_without_yes_says_what_it_would_delete_and_deletes_nothing(home: Path) -> None:
    refused = queue(home, "drop", "--lane", "telemetry")
    assert refused.returncode == 2
    assert f"would delete {MESSAGES - 2} messages that wait ({MESSAGES - 2} telemetry): add --yes" in refused.stderr
    assert "would delete 0 messages" in queue(home, "drop", "--older-than", "1h").stderr
    assert "0 messages were deleted" in must(home, "drop", "--older-than", "1h", "--yes")
    assert len(peeked(home)) == MESSAGES - 2


def test_a_faulty_file_is_refused_with_every_fault_and_nothing_is_imported(home: Path) -> None:
    file = home / "out.jsonl"
    must(home, "export", file)
    good = json.loads(file.read_text().splitlines()[0])
    bad = [good | {"seq": 0}, good | {"topic": "telemetry/other"}, good | {"more": 1}]
    file.write_text("\n".join([json.dumps(good), "garbage", *map(json.dumps, bad)]))
    refused = queue(home, "import", file)
    assert refused.returncode == 2
    assert [line.split(": ")[0] for line in refused.stderr.splitlines()[:-1]] == [f"{file}:{n}" for n in (2, 3, 4, 5)]
    assert "nothing was imported" in refused.stderr
    assert len(peeked(home)) == MESSAGES - 2


def test_a_failed_export_leaves_the_former_file_and_no_other(home: Path) -> None:
    (home / "out").mkdir()
    (home / "out/file").mkdir()
    assert queue(home, "export", home / "out/file").returncode == 1
    assert queue(home, "export", home / "none/file").returncode == 1
    assert [path.name for path in (home / "out").iterdir()] == ["file"]


def test_the_agent_of_another_directory_is_not_used(home: Path, short_dir: Path) -> None:
    with agent(short_dir / "b", NOWHERE) as other, agent(home, NOWHERE) as process:
        answers(other)
        answers(process)
        refused = edgepost("queue", "drop", "--yes", "--data-dir", process.data, "--runtime-dir", other.runtime)
        assert refused.returncode == 1
        assert "name the --runtime-dir that belongs to this --data-dir" in refused.stderr
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(other.runtime / "status"))
            client.sendall(json.dumps({"command": "delete", "numbers": None, "data_dir": str(process.data)}).encode())
            client.sendall(b"\n")
            assert json.loads(client.recv(65536))["ok"] is False
        assert len(peeked(home)) == MESSAGES - 2


def test_nobody_writes_while_another_holds_the_directory_and_does_not_answer(home: Path) -> None:
    held = lock(home / "data")
    try:
        refused = queue(home, "drop", "--yes")
        assert refused.returncode == 1
        assert "if it is an agent, name its --runtime-dir" in refused.stderr
    finally:
        os.close(held)
    assert len(peeked(home)) == MESSAGES - 2


@pytest.mark.parametrize("sent", [b"", b"\n", b'{"command": "status"}\n'], ids=["nothing", "empty", "status"])
def test_an_empty_request_is_answered_with_the_status(home: Path, sent: bytes) -> None:
    with agent(home, NOWHERE) as process:
        answers(process)
        answer = _raw(process, sent)
        assert answer["device"] == "pi"
        assert answer["data_dir"] == str(process.data.resolve())


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"garbage\n", "no JSON"),
        (b"[]\n", "expected"),
        (b'{"command": "drop"', "not complete"),
        (b'{"command": "drop"}\n', "not of None"),
        (b" " * (MAX_REQUEST_BYTES + 1), "may have"),
    ],
    ids=["garbage", "list", "cut", "no directory", "too long"],
)
def test_a_bad_request_is_refused_and_the_agent_goes_on(home: Path, sent: bytes, error: str) -> None:
    with agent(home, NOWHERE) as process:
        answers(process)
        answer = _raw(process, sent)
        assert answer["ok"] is False
        assert error in answer["error"]
        assert process.status()["device"] == "pi"
        assert "Traceback" not in process.log.read_text()


def test_where_there_is_no_queue_every_action_says_so(short_dir: Path) -> None:
    file = short_dir / "out.jsonl"
    file.write_text("")
    for action, *arguments in (["peek"], ["dead"], ["dead", "--requeue", "all"], ["export", file], ["drop", "--yes"]):
        refused = queue(short_dir, action, *arguments)
        assert refused.returncode == 1
        assert "there is no queue here yet; name the agent's --data-dir" in refused.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a directory of another user")
def test_the_queue_of_another_user_is_not_changed(home: Path) -> None:
    os.chown(home / "data/queue/cache.db", 12345, 12345)
    refused = queue(home, "drop", "--yes")
    assert refused.returncode == 1
    assert "belongs to user 12345, not to you" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["dead", "--requeue", "x"],
        ["peek", "--limit", "0"],
        ["drop", "--older-than", "soon"],
        ["peek", "--lane", "fast"],
    ],
    ids=" ".join,
)
def test_bad_usage_exits_2(home: Path, arguments: list[str]) -> None:
    assert queue(home, *arguments).returncode == 2


def _raw(process: Agent, sent: bytes) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(process.runtime / "status"))
        client.sendall(sent)
        answer: dict[str, object] = json.loads(b"".join(iter(lambda: client.recv(65536), b"")))
        return answer
