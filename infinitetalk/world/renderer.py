"""People, camera and backdrop → pixels and mouth boxes, by OpenGL through EGL: no display needed, nor a GPU.

The same input gives the same pixels on one machine with one driver. Across machines that cannot be promised: Mesa's
software rasterizer (llvmpipe) rounds differently from one version and processor to another. People, motions and mouth
boxes do not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from infinitetalk.errors import BadInputError, InfiniteTalkError
from infinitetalk.world import shaders
from infinitetalk.world.drawing import Drawing, set_all
from infinitetalk.world.figure import Figure, assemble, landmarks, pose
from infinitetalk.world.scene import (
    LENS,
    Backdrop,
    Camera,
    Floats,
    Light,
    Motion,
    Person,
    Pixels,
    Rendered,
)
from infinitetalk.world.view import face_box, lamp_view, look, mouth_box, projection, stand

BATCH = 16
"""Frames posed at once."""
SHADOW = 320
"""Side of the map of what the lamp sees."""
BACKDROP = ((-1.9, -1.24), (1.9, 1.78), 0.9)
"""Corners (x, z) of the backdrop against the eyes' … and how far behind it stands, in metres."""


class NoGraphicsError(InfiniteTalkError):
    """There is no OpenGL through EGL here."""


class Renderer:
    """Draws. One at a time per thread; `close` (or `with`) gives the context back."""

    def __init__(self, size: tuple[int, int], supersample: int = 2) -> None:
        """Opens OpenGL.

        Args:
            size: Rows and columns of a frame.
            supersample: Samples per pixel and axis.

        Raises:
            BadInputError: The size is not positive.
            NoGraphicsError: EGL or a driver is missing.
        """
        if min(*size, supersample) < 1:
            raise BadInputError(f"{size[0]} by {size[1]} pixels, {supersample} samples", where="renderer",
                                hint="Give positive numbers")
        self.size, self.supersample = size, supersample
        self._gl = _context()
        self._figures: list[tuple[Person, Figure]] = []
        rows, columns = size[0] * supersample, size[1] * supersample
        self._target = self._gl.framebuffer([self._gl.texture((columns, rows), 3)],
                                            self._gl.depth_renderbuffer((columns, rows)))
        self._depth = self._gl.depth_texture((SHADOW, SHADOW))
        self._depth.compare_func = ""
        self._depth.repeat_x = self._depth.repeat_y = False
        self._lamp = self._gl.framebuffer(depth_attachment=self._depth)
        self._people = {name: self._gl.program(shaders.VERTEX, text) for name, text in shaders.FRAGMENTS.items()}
        self._shadow = self._gl.program(shaders.DEPTH_VERTEX, shaders.DEPTH_FRAGMENT)
        self._back = self._gl.program(shaders.BACK_VERTEX, shaders.BACK_FRAGMENT)

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives memory and context back."""
        self._gl.release()

    def render(self, people: Sequence[tuple[Person, Motion]], camera: Camera, backdrop: Backdrop,
               frames: range | None = None) -> Rendered:
        """Draws some frames, all if none are named.

        Args:
            people: Who, and what they do; the first stands on the picture's left.
            camera: Where it is seen from.
            backdrop: What is behind, and the light.
            frames: Which frames of the motions.

        Raises:
            BadInputError: Nobody is there, or motions and camera are of different lengths.
        """
        picked = range(len(camera.path)) if frames is None else frames
        _check(people, camera, picked)
        figures = [self._figure(p) for p, _ in people]
        buffers = [Drawing(self._gl, self._people, self._shadow, figures[i], p) for i, (p, _) in enumerate(people)]
        eyes = float(np.mean([f.eyes for f in figures]))
        flipped = np.ascontiguousarray(backdrop.picture[::-1])
        scene = self._gl.texture(flipped.shape[1::-1], 3, flipped.tobytes(), alignment=1)
        scene.repeat_x = scene.repeat_y = False
        wall = self._wall(eyes)
        pixels = np.empty((len(picked), *self.size, 3), np.uint8)
        mouths, faces = np.empty((2, len(people), len(picked), 4), np.float32)
        try:
            for start in range(0, len(picked), BATCH):
                some = picked[start:start + BATCH]
                posed = [stand(*pose(f, people[i][1], some), i, len(people)) for i, f in enumerate(figures)]
                marks = [landmarks(f, people[i][1], some) for i, f in enumerate(figures)]  # (F, 2, 3) each
                marks = [stand(one, one, i, len(people))[0] for i, one in enumerate(marks)]
                for k, frame in enumerate(some):
                    view, lens = self._lens(camera.path[frame], LENS.get(camera.framing, 1.0), eyes)
                    for i, (points, _) in enumerate(posed):
                        mouths[i, start + k] = mouth_box(points[k, figures[i].lips], lens @ view, self.size)
                        faces[i, start + k] = face_box(marks[i][k], lens @ view, lens, self.size)
                    for buffer, (points, out) in zip(buffers, posed, strict=True):
                        buffer.write(points[k], out[k])
                    pixels[start + k] = self._draw(buffers, backdrop.light, view, lens, wall, scene, eyes)
        finally:
            for thing in (*buffers, scene, wall):
                thing.release()
        return Rendered(pixels, mouths, faces)

    def _figure(self, person: Person) -> Figure:
        """The person's mesh, the last few kept."""
        for known, figure in self._figures:
            if known is person:
                return figure
        self._figures = [*self._figures[-3:], (person, assemble(person))]
        return self._figures[-1][1]

    def _lens(self, path: Floats, lens: float, eyes: float) -> tuple[Floats, Floats]:
        """View and projection of a frame, (4, 4) both."""
        azimuth, elevation, distance, x, z = (float(v) for v in path)
        target = np.array([x, -0.06, eyes - 0.03 + z])
        way = np.array([np.sin(azimuth) * np.cos(elevation), -np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
        return look(target + distance * way, target), projection(self.size, lens)

    def _wall(self, eyes: float) -> Any:
        """The backdrop's corners."""
        (left, low), (right, high), away = BACKDROP
        wide, tall = right - left, high - low               # thrice the picture, whose edges go on for ever
        corners = [[left + wide * u, away, eyes + low + tall * v, u, v] for v in (-1, 2) for u in (-1, 2)]
        buffer = self._gl.buffer(np.array(corners, "f4").tobytes())
        return self._gl.vertex_array(self._back, [(buffer, "3f 2f", "place", "where")])

    def _draw(self, buffers: list[Drawing], light: Light, view: Floats, lens: Floats, wall: Any, scene: Any,
              eyes: float) -> Pixels:
        """One frame."""
        gl = self._gl
        gl.enable(gl.DEPTH_TEST)
        lamp = lamp_view(light, view, eyes, len(buffers))
        self._lamp.use()
        self._lamp.clear(depth=1.0)
        self._shadow["lamp_view"].write(lamp.T.astype("f4").tobytes())
        for buffer in buffers:
            buffer.shadow()
        self._target.use()
        self._target.clear(0.2, 0.2, 0.2)
        seen = {"view": tuple(view.T.ravel().tolist()), "lens": tuple(lens.T.ravel().tolist())}
        set_all(self._back, seen)
        scene.use(0)
        self._back["picture"].value = 0
        wall.render(gl.TRIANGLE_STRIP)
        self._depth.use(1)
        for program in self._people.values():
            set_all(program, {**seen, "lamp_view": tuple(lamp.T.ravel().tolist()), "shadow": 1, "room": light.room,
                              "lamp": light.lamp, "lamp_way": light.direction})
        for buffer in buffers:
            buffer.draw()
        return self._read()

    def _read(self) -> Pixels:
        """The target, averaged down."""
        s, (rows, columns) = self.supersample, self.size
        raw = np.frombuffer(self._target.read(components=3, alignment=1), np.uint8)
        raw = raw.reshape(rows, s, columns, s, 3)[::-1]
        total = sum(raw[:, i, :, j].astype(np.uint16) for i in range(s) for j in range(s))
        return np.asarray((total + s * s // 2) // (s * s), np.uint8)


def _context() -> Any:
    """OpenGL 3.3 through EGL.

    Raises:
        NoGraphicsError: The package, the library or a driver is missing.
    """
    hint = "Install them: pip install 'infinidub[world]', and apt-get install libegl1 libgl1-mesa-dri"
    try:
        import moderngl

        return moderngl.create_context(require=330, standalone=True, backend="egl")  # type: ignore[arg-type]
    except Exception as error:  # moderngl raises bare Exception when the library or a driver is missing
        raise NoGraphicsError(f"OpenGL cannot be opened through EGL ({error})", where="renderer", hint=hint) from error


def _check(people: Sequence[tuple[Person, Motion]], camera: Camera, frames: range) -> None:
    """Refuses what cannot be drawn.

    Raises:
        BadInputError: See `Renderer.render`.
    """
    if not people:
        raise BadInputError("nobody to draw", where="renderer", hint="Give at least one person")
    tracks = [t for _, m in people for t in (m.units, m.head, m.torso, m.arms, m.gaze)]
    lengths = {len(t) for t in (camera.path, *tracks)}
    if len(lengths) > 1 or (frames and max(frames) >= min(lengths)):
        raise BadInputError(f"motions and camera of {sorted(lengths)} frames, asked for {frames}", where="renderer",
                            hint="Make them equally long")
