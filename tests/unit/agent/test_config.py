"""A configuration is checked whole: every fault at once, each with its place, what was found and what is expected."""

from pathlib import Path

import pytest

from agent.config import load
from agent.errors import ConfigError
from tests.support import edgepost

GOOD = """[mqtt]
urls = ["mqtt://localhost"]
[[sensor]]
name = "cpu"
driver = "cpu"
"""


def faults(path: Path, text: str | bytes) -> list[str]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [fault.removeprefix(f"{path}:") for fault in caught.value.faults]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.toml"


def test_a_good_one_is_typed(file: Path) -> None:
    file.write_text(GOOD + 'interval = "500ms"\n[queue]\nmax_bytes = "2GiB"\n[device]\nid = "pi-1"\n')
    loaded = load(file)
    assert loaded.device.id == "pi-1"
    assert loaded.queue.max_bytes == 2 * 2**30
    assert loaded.sensors[0].interval == 0.5
    assert loaded.mqtt.protocol == "auto"


def test_every_fault_is_reported_at_once_with_its_line(file: Path) -> None:
    text = """[mqtt]
urls = ["http://broker", "mqtt://me:secret@broker"]
protocol = "4"
windw = 3

[queue]
max_bytes = "12 quux"

[[sensor]]
name = "Bad Name"
driver = "cpuu"

[[sensor]]
name = "a"
driver = "cpu"
interval = 10
root = 5

[[sensor]]
name = "a"
driver = "cpu"
interval = "0s"

[[sensor]]
driver = "cpu"

[mqt]
"""
    found = faults(file, text)
    expected = {
        "2": ["http://broker", "mqtt|mqtts|ws|wss://host[:port]", "credentials"],
        "3": ["protocol", "found '4'", "'5'", "'3.1.1'", "'auto'"],
        "4": ["windw: unknown key", "did you mean window?"],
        "7": ["max_bytes", "expected a size with its unit", "12 quux"],
        "10": ["name", "found 'Bad Name'", "1 to 64 of a-z 0-9 _ -"],
        "11": ["no sensor driver is named 'cpuu'", "did you mean 'cpu'?"],
        "16": ["interval", "expected a duration with its unit", "found 10"],
        "17": ["root: unknown key"],
        "20": ["name: 'a' is used already at", ":14"],
        "22": ["interval: expected a duration above zero"],
        "24": ["sensor.name: is missing"],
        "27": ["[mqt]: unknown section, did you mean [mqtt]?"],
    }
    for line, words in expected.items():
        matching = [fault for fault in found if fault.startswith(f"{line}: ")]
        assert matching, f"no fault for line {line} in {found}"
        assert all(any(word in fault for fault in matching) for word in words), (words, matching)
    assert not any("secret" in fault for fault in found)


def test_credentials_in_an_address_are_refused_and_not_repeated(file: Path) -> None:
    (fault,) = faults(file, GOOD.replace("mqtt://localhost", "mqtt://me:secret@broker"))
    assert "credentials" in fault
    assert "secret" not in fault


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "there is nothing to read"),
        (b"\x7fELF\0\0\1", "is a binary file"),
        (b'[device]\nid = "gr\xfcn"\n', "byte 0xfc is not UTF-8"),
        (b"[device\nid = 1", "no valid TOML"),
        (b"x = 1\n", "unknown section"),
    ],
)
def test_what_is_no_configuration_is_named_for_what_it_is(file: Path, content: bytes, words: str) -> None:
    found = faults(file, content)
    assert any(words in fault for fault in found), found


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml")


def test_lines_are_right_below_strings_of_several_lines_and_nested_tables(file: Path) -> None:
    text = GOOD + 'interval = """\n[fake]\nname = 1\n"""\n[[sensor]]\nname = "b"\ndriver = "cpu"\nwrong = 1\n'
    found = faults(file, text)
    assert any(fault.startswith("13: wrong") for fault in found), found


def test_files_in_conf_d_are_added_and_replace_single_keys(file: Path) -> None:
    file.write_text(GOOD + '[device]\nid = "a"\n')
    more = file.parent / "conf.d"
    more.mkdir()
    (more / "10-more.toml").write_text('[device]\nid = "b"\n[[sensor]]\nname = "memory"\ndriver = "memory"\n')
    loaded = load(file)
    assert loaded.device.id == "b"
    assert [sensor.name for sensor in loaded.sensors] == ["cpu", "memory"]
    (more / "20-bad.toml").write_text("[device]\nidd = 1\n")
    with pytest.raises(ConfigError, match=r"20-bad\.toml:2: idd: unknown key"):
        load(file)


@pytest.mark.parametrize("command", ["check", "run"])
def test_the_command_prints_all_faults_and_exits_with_2(file: Path, command: str) -> None:
    file.write_text("[mqtt]\nurls = []\nx = 1\n[[sensor]]\nname = 'a'\ndriver = 'nope'\n")
    done = edgepost(command, "--config", file)
    assert done.returncode == 2
    for words in (":2: urls", ":3: x: unknown key", ":6: driver: no sensor driver is named 'nope'"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_good_file_is_said_to_be_good(file: Path) -> None:
    file.write_text(GOOD)
    done = edgepost("check", "--config", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "good; sensors: 1" in done.stdout


def test_a_driver_whose_library_is_missing_names_the_command_that_installs_it(file: Path, tmp_path: Path) -> None:
    (tmp_path / "pynmeagps.py").write_text("raise ModuleNotFoundError('gone', name='pynmeagps')")
    file.write_text(GOOD.replace('driver = "cpu"', 'driver = "gps"\ndevice = "/dev/ttyUSB0"'))
    done = edgepost("check", "--config", file, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "pip install 'edgepost[gps]'" in done.stderr


def test_faults_are_in_the_order_of_the_file_and_in_plain_words(file: Path) -> None:
    text = """[mqtt]
urls = ["mqtt://localhost"]
root = 5
window = "many"

[[camera]]
name = "gate"
driver = "scene"
slots = 1
width = 1.5
"""
    found = faults(file, text)
    assert [fault.split(":")[0] for fault in found] == ["3", "4", "9", "10"]
    assert "found 5, expected 1 to 64 of a-z 0-9 _ -" in found[0]
    assert "found 'many', expected a whole number" in found[1]
    assert "found 1, expected a whole number >= 3" in found[2]
    assert not any("`" in fault for fault in found)


def test_a_file_that_can_not_be_read_is_the_only_fault(file: Path) -> None:
    assert len(faults(file, "[mqtt\n")) == 1
    assert len(faults(file, b"\0")) == 1


@pytest.mark.parametrize(
    "line",
    [
        'url = ["rtsp://u:hunter2@h/x"]',
        'url = "rtps://u:hun/hunter2@h/x"',
        'url = "rtsp://u:hun@hunter2@h/x"\nslots = "x"',
    ],
)
def test_no_fault_repeats_a_password(file: Path, line: str) -> None:
    text = f'[mqtt]\nurls = ["mqtt://localhost"]\n[[camera]]\nname = "gate"\ndriver = "rtsp"\n{line}\n'
    assert not any("hunter2" in fault for fault in faults(file, text))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("interval", '"99999999999d"', "at most 10 years"),
        ("interval", '"0.000001ms"', "at least 1ms"),
        ("name", '"u\\n"', "1 to 64 of a-z 0-9 _ -"),
    ],
)
def test_values_that_no_agent_could_use_are_faults(file: Path, key: str, value: str, words: str) -> None:
    text = GOOD.replace('name = "cpu"\n', "" if key == "name" else 'name = "cpu"\n') + f"{key} = {value}\n"
    assert any(words in fault for fault in faults(file, text))


def test_sizes_nesting_and_empty_lists_that_make_no_sense_are_faults(file: Path) -> None:
    assert any("at most" in fault for fault in faults(file, GOOD + f'[queue]\nmax_bytes = "{"9" * 400}GiB"\n'))
    assert any("too deep" in fault for fault in faults(file, GOOD + f"a = {'[' * 3000}{']' * 3000}\n"))
    assert any("unknown section" in fault for fault in faults(file, "device = []\n" + GOOD))
