import pytest

from drivers.contract import BadData
from drivers.registry import Buses
from drivers.sensors.temperature import Temperature, TemperatureSettings


@pytest.fixture
def temperature(tmp_path):
    return Temperature(TemperatureSettings(), Buses(tmp_path))


def values(sensor):
    sensor.open()
    return sensor.read()[0].values


def test_zones_and_hwmon_inputs_are_read_in_degrees_celsius(temperature, write):
    write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write("sys/class/thermal/thermal_zone0/temp", "48312\n")
    write("sys/class/hwmon/hwmon1/name", "nvme\n")
    write("sys/class/hwmon/hwmon1/temp1_input", "-5000\n")
    write("sys/class/hwmon/hwmon1/temp1_label", "Composite\n")
    assert values(temperature) == {"cpu_thermal": 48.312, "nvme_composite": -5.0}


def test_thermometers_of_the_same_name_are_numbered_in_the_kernels_order(temperature, write):
    for number in (10, 9, 0):
        write(f"sys/class/thermal/thermal_zone{number}/type", "acpitz\n")
        write(f"sys/class/thermal/thermal_zone{number}/temp", f"{number}000\n")
    assert values(temperature) == {"acpitz": 0.0, "acpitz_2": 9.0, "acpitz_3": 10.0}


def test_the_kernels_mirror_of_a_zone_in_hwmon_is_not_read_twice(temperature, write, tmp_path):
    zone = write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n").parent
    write("sys/class/thermal/thermal_zone0/temp", "48312\n")
    write("sys/class/hwmon/hwmon0/name", "cpu_thermal\n")
    write("sys/class/hwmon/hwmon0/temp1_input", "48312\n")
    (tmp_path / "sys/class/hwmon/hwmon0/device").symlink_to(zone)
    assert values(temperature) == {"cpu_thermal": 48.312}


def test_a_machine_without_a_thermometer_has_no_readings(temperature):
    temperature.open()
    assert temperature.read() == []
    assert temperature.fields == {}


def test_fields_name_every_thermometer_before_open(temperature, write):
    write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write("sys/class/thermal/thermal_zone0/temp", "48312\n")
    assert {name: field.unit for name, field in temperature.fields.items()} == {"cpu_thermal": "Cel"}


def test_a_thermometer_that_can_not_be_read_does_not_hide_the_others(temperature, write):
    for number in (0, 1):
        write(f"sys/class/thermal/thermal_zone{number}/type", f"zone {number}\n")
        write(f"sys/class/thermal/thermal_zone{number}/temp", "20000\n")
    temperature.open()
    write("sys/class/thermal/thermal_zone0/temp", "").unlink()
    assert temperature.read()[0].values == {"zone_1": 20.0}


def test_a_value_below_absolute_zero_is_left_out(temperature, write):
    write("sys/class/thermal/thermal_zone0/temp", "-274000\n")
    temperature.open()
    assert temperature.read() == []


def test_what_is_no_number_is_bad_data(temperature, write):
    write("sys/class/thermal/thermal_zone0/temp", "warm\n")
    temperature.open()
    with pytest.raises(BadData, match="warm"):
        temperature.read()
