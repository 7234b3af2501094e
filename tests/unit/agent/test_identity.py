"""The device's name is stable, distinct, and does not give the machine id away."""

from pathlib import Path

from agent.identity import device_id


def test_a_configured_name_is_used(tmp_path: Path) -> None:
    assert device_id("pi-1", tmp_path) == "pi-1"


def test_auto_is_stable_distinct_and_not_the_machine_id(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    first.write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    second.write_text("3d1219c7c4c5404aaa1f6d2a48adfda5\n")
    name = device_id("auto", tmp_path, first)
    assert name == device_id("auto", tmp_path, first)
    assert name != device_id("auto", tmp_path, second)
    assert "3d1219c7" not in name


def test_without_a_machine_id_a_random_name_is_kept(tmp_path: Path) -> None:
    name = device_id("auto", tmp_path, tmp_path / "none")
    assert name.startswith("ep-")
    assert device_id("auto", tmp_path, tmp_path / "none") == name
