"""What the camera `scene` sees: a wall, and someone who walks past now and then."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from drivers.contract import Pixels

_BITS = 32
_MARK_ROWS = 8
_AWAY_S = 6.0
_WALK_S = 8.0


class Painter:
    """The walker is out of the picture for 6 s, then crosses it in 8 s, and so on.

    The same seed paints the same frames. Each carries its number: see `frame_number`.
    """

    def __init__(self, width: int, height: int, fps: float, seed: int) -> None:
        chance = np.random.default_rng(seed)
        grain = chance.integers(0, 12, (height, width, 1), np.uint8)
        light = np.linspace(70, 150, width, dtype=np.uint8)[None, :, None]
        tint = chance.integers(0, 40, (1, 1, 3), np.uint8)
        self._wall = np.ascontiguousarray(grain + light + tint)
        self._coat = chance.integers(0, 60, 3, np.uint8)
        self._fps = fps
        self._number = 0

    def paint(self, image: "Pixels") -> None:
        """Render the next frame into `image`, height × width × 3."""
        np.copyto(image, self._wall)
        self._draw_walker(image, self._number / self._fps)
        _write_number(image, self._number)
        self._number += 1

    def _draw_walker(self, image: "Pixels", t_s: float) -> None:
        walked_s = t_s % (_AWAY_S + _WALK_S) - _AWAY_S
        if walked_s < 0:
            return
        rows, columns = image.shape[:2]
        tall, wide = rows // 2, max(4, columns // 12)
        left = round((columns + wide) * walked_s / _WALK_S) - wide
        top = rows - tall - rows // 16 + round(rows / 60 * np.sin(walked_s * 9))  # a step bobs
        visible = slice(max(0, left), max(0, left + wide))
        image[top : top + tall, visible] = self._coat
        image[top : top + tall // 5, visible] = (120, 160, 210)  # a face, in blue, green, red


def frame_number(image: "Pixels") -> int:
    """Read a frame's number from its pixels: 32 cells along the top edge, dark or bright, the lowest bit first."""
    cell = image.shape[1] // _BITS
    centres = image[_MARK_ROWS // 2, cell // 2 : cell * _BITS : cell, 0]
    return sum(1 << bit for bit, level in enumerate(centres) if level > 127)


def _write_number(image: "Pixels", number: int) -> None:
    cell = image.shape[1] // _BITS
    bits = np.array([number >> bit & 1 for bit in range(_BITS)], np.uint8) * 255
    image[:_MARK_ROWS, : cell * _BITS] = np.repeat(bits, cell)[None, :, None]
