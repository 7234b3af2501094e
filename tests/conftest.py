"""What every test may use, and the rule that in CI only the skips on the written list may happen."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.simulator.broker import OwnBroker

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose name is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="ep-") as directory:
        yield Path(directory)


@pytest.fixture
def broker(short_dir: Path) -> Iterator[OwnBroker]:
    """A real broker on 127.0.0.1."""
    own = OwnBroker(short_dir / "broker")
    own.start()
    yield own
    own.stop()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail in CI when something was skipped for a reason that is not on the list."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or reporter is None:
        return
    allowed = [line for line in ALLOWED_SKIPS.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(entry in reason for entry in allowed):
            reporter.write_line(f"skipped in CI and not on {ALLOWED_SKIPS.name}: {report.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
