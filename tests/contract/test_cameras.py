"""One suite for every camera that can run without hardware: what the agent counts on."""

import subprocess
import sys
import time

import cv2
import msgspec
import numpy as np
import pytest

from drivers.buses.video import public_name
from drivers.contract import DeviceAbsent, DriverError, EndOfStream, FormatChanged, decode_quantity
from drivers.models.scene import Painter, frame_number
from drivers.registry import Buses, load, names
from tests.support import ROOT

FRAMES = 12


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Twelve frames of 96×64, each of its own brightness."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (96, 64))
    for number in range(FRAMES):
        writer.write(np.full((64, 96, 3), 20 * number, np.uint8))
    writer.release()
    return path


def make(driver, **settings):
    kind = load("camera", driver)
    return kind(msgspec.convert(settings, kind.Settings, dec_hook=decode_quantity), Buses())


@pytest.fixture(params=["scene", "file"])
def camera(request, clip):
    made = (
        make("file", path=str(clip), rate=200)
        if request.param == "file"
        else make("scene", width=96, height=64, fps=200)
    )
    yield made
    made.close()


def test_every_shipped_camera_loads():
    assert {"file", "rtsp", "scene", "v4l2"} <= set(names("camera"))
    for name in names("camera"):
        load("camera", name)


def test_a_camera_fills_exactly_the_picture_it_is_given(camera):
    form = camera.open()
    room = np.full((form.height + 2, *form.shape[1:]), 77, np.uint8)
    image = room[1:-1]
    image[:] = 78
    for _ in range(3):
        camera.grab_into(image)
        assert (room[0] == 77).all()
        assert (room[-1] == 77).all()
        assert (image != 78).any()


def test_frames_differ_and_their_stamps_are_in_order_and_of_now(camera):
    image = np.zeros(camera.open().shape, np.uint8)
    before = time.monotonic_ns(), time.time_ns()
    seen = []
    for _ in range(5):
        capture = camera.grab_into(image)
        seen.append((capture.t_mono_ns, capture.t_real_ns, image.tobytes()))
    after = time.monotonic_ns(), time.time_ns()
    for clock in (0, 1):
        stamps = [each[clock] for each in seen]
        assert [before[clock], *stamps, after[clock]] == sorted([before[clock], *stamps, after[clock]])
    assert len({pixels for *_, pixels in seen}) == 5


def test_a_camera_can_be_closed_at_any_time_and_opened_again(camera):
    camera.close()
    form = camera.open()
    camera.close()
    camera.close()
    assert camera.open() == form
    camera.grab_into(np.zeros(form.shape, np.uint8))


def test_a_file_that_is_not_there_is_absent_and_what_is_no_video_is_refused(tmp_path):
    with pytest.raises(DeviceAbsent, match=r"none\.avi"):
        make("file", path=str(tmp_path / "none.avi")).open()
    (tmp_path / "text.avi").write_text("no video")
    broken = make("file", path=str(tmp_path / "text.avi"))
    with pytest.raises(DriverError, match=r"text\.avi"):
        broken.open()
    broken.close()


def test_a_file_ends_after_its_last_frame_unless_it_loops(clip):
    for loop in (False, True):
        camera = make("file", path=str(clip), loop=loop, rate=1000)
        image = np.zeros(camera.open().shape, np.uint8)
        first = None
        for _ in range(FRAMES):
            camera.grab_into(image)
            first = image.tobytes() if first is None else first
        if loop:
            camera.grab_into(image)
            assert image.tobytes() == first
        else:
            with pytest.raises(EndOfStream):
                camera.grab_into(image)
        camera.close()


def test_a_frame_of_another_shape_is_handed_over_not_lost(clip):
    camera = make("file", path=str(clip), rate=1000)
    form = camera.open()
    right, wrong = np.zeros(form.shape, np.uint8), np.zeros((32, 48, 3), np.uint8)
    for _ in range(2):  # the first was decoded when the file was opened, the second is decoded now
        with pytest.raises(FormatChanged, match="96×64") as caught:
            camera.grab_into(wrong)
        assert caught.value.image.shape == form.shape
        assert not wrong.any()
    camera.grab_into(right)
    assert right[0, 0, 0] == pytest.approx(40, abs=4)
    camera.close()


def test_a_file_is_played_no_faster_than_asked(clip):
    camera = make("file", path=str(clip))  # 20 frames/s as recorded
    image = np.zeros(camera.open().shape, np.uint8)
    stamps = [camera.grab_into(image).t_mono_ns for _ in range(5)]
    assert stamps[4] - stamps[0] > 0.15e9
    camera.close()


@pytest.mark.parametrize("rate", [0, -1, 1001, "fast"])
def test_a_rate_that_can_not_be_is_refused(rate):
    with pytest.raises(msgspec.ValidationError, match="rate"):
        make("file", path="x", rate=rate)


def test_a_scene_is_the_same_for_the_same_seed_and_numbers_its_frames():
    images = []
    for seed in (1, 1, 2):
        camera = make("scene", width=161, height=99, fps=1000, seed=seed)
        image = np.zeros(camera.open().shape, np.uint8)
        for number in range(70):
            camera.grab_into(image)
            assert frame_number(image) == number
        images.append(image.copy())
    assert (images[0] == images[1]).all()
    assert (images[0] != images[2]).any()


def test_someone_walks_through_the_scene_now_and_then():
    painter = Painter(160, 120, fps=1.0, seed=0)
    images = [np.zeros((120, 160, 3), np.uint8) for _ in range(28)]
    for image in images:
        painter.paint(image)
    below_the_number = [image[16:] for image in images]
    moving = [bool((image != below_the_number[0]).any()) for image in below_the_number]
    assert moving[:6] == [False] * 6
    assert any(moving[6:14])
    assert moving[14:20] == [False] * 6
    assert any(moving[20:])


def test_a_camera_that_is_not_plugged_in_is_absent():
    with pytest.raises(DeviceAbsent, match="video97"):
        make("v4l2", device="/dev/video97").open()


def test_no_text_shows_the_password_of_an_address(capfd):
    camera = make("rtsp", url="rtsp://me:s3cret@127.0.0.1:9/live?password=s3cret", timeout="1s")
    with pytest.raises(DeviceAbsent, match=r"rtsp://127\.0\.0\.1:9/live") as caught:
        camera.open()
    assert "s3cret" not in f"{caught.value!r}{caught.value.__cause__!r}{capfd.readouterr()}"
    camera.close()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/dev/video0", "/dev/video0"),
        ("rtsp://host/a", "rtsp://host/a"),
        ("rtsp://u:p@ss@host:554/a?user=u&pass=p#f", "rtsp://host:554/a?…"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(source, shown):
    assert public_name(source) == shown


def test_declaring_cameras_loads_neither_numpy_nor_cv2() -> None:
    """The agent checks a camera's settings; only the worker decodes."""
    program = (
        "import sys; from drivers.registry import load, names; [load('camera', name) for name in names('camera')]; "
        "sys.exit(bool({'numpy', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
