import json
import tomllib

import pytest

from agent.__main__ import main
from drivers import registry


def run(capsys, *arguments):
    status = main(["drivers", *arguments])
    return status, capsys.readouterr()


def test_the_list_has_every_driver_with_what_it_does(capsys):
    status, output = run(capsys)
    assert status == 0
    rows = output.out.splitlines()
    for name in registry.names("sensor"):
        assert any(row.split()[:2] == ["sensor", name] and len(row.split()) > 3 for row in rows)


def test_the_list_is_json_on_request(capsys):
    _, output = run(capsys, "--json")
    entries = json.loads(output.out)
    assert {"kind", "name", "summary", "missing"} == set(entries[0])
    assert "gps" in {entry["name"] for entry in entries}


def test_a_page_has_settings_fields_and_a_section_to_paste(capsys):
    status, output = run(capsys, "wxt520")
    assert status == 0
    for expected in ("baudrate", "whole number 1200..115200", "Bd", '"2s"', "wind_speed", "m/s", "[[sensor]]"):
        assert expected in output.out


def test_a_page_is_json_on_request(capsys):
    _, output = run(capsys, "gps", "--json")
    (page,) = json.loads(output.out)
    assert {setting["name"] for setting in page["settings"]} == {"device", "baudrate", "timeout"}
    assert page["fields"]["latitude"]["unit"] == "deg"


def test_the_example_alone_is_toml(capsys):
    _, output = run(capsys, "gps", "--example")
    assert tomllib.loads(output.out)["sensor"][0]["driver"] == "gps"


def test_an_unknown_name_is_bad_usage_and_the_nearest_is_named(capsys):
    status, output = run(capsys, "gsp")
    assert status == 2
    assert "did you mean 'gps'" in output.err


@pytest.mark.parametrize("arguments", [("--example",), ("nothing-of-the-kind",)])
def test_what_can_not_be_shown_is_bad_usage(capsys, arguments):
    status, output = run(capsys, *arguments)
    assert status == 2
    assert output.err.startswith("edgepost: ")
