"""People, camera and backdrop → pixels and mouth boxes, by OpenGL through EGL: no display needed, nor a GPU.

The same input gives the same pixels on one machine with one driver. Across machines that cannot be promised: Mesa's
software rasterizer (llvmpipe) rounds differently from one version and processor to another. The truth does not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infinitetalk.errors import BadInputError, InfiniteTalkError
from infinitetalk.world import shaders
from infinitetalk.world.body import LEFT_EYE, LIPS, SKIN, body, turn
from infinitetalk.world.figure import Z, Figure, assemble, pose
from infinitetalk.world.person import PATTERNS
from infinitetalk.world.scene import FIELD_OF_VIEW, SPACING, Backdrop, Camera, Floats, Light, Motion, Person, Pixels, Rendered

BATCH = 16
"""Frames posed at once."""
SHELLS = 4
"""Times that hair is drawn, one within the other, so that its edge is soft."""
SHADOW = 512
"""Side of the map of what the lamp sees."""
FACING = 0.10
"""Radians that two people are turned to each other."""
BACKDROP = ((-1.9, -1.24), (1.9, 1.78), 0.9)
"""Corners (x, z) of the backdrop against the eyes' … and how far behind it stands, in metres."""
MARGIN = 0.30
"""Of a mouth box, as a share of its larger side, on each side."""


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
            raise BadInputError(f"{size[0]} by {size[1]} pixels, {supersample} samples", where="renderer", hint="Give positive numbers")
        self.size, self.supersample = size, supersample
        self._gl = _context()
        rows, columns = size[0] * supersample, size[1] * supersample
        self._target = self._gl.framebuffer([self._gl.texture((columns, rows), 3)], self._gl.depth_renderbuffer((columns, rows)))
        self._depth = self._gl.depth_texture((SHADOW, SHADOW))
        self._depth.compare_func = ""
        self._depth.repeat_x = self._depth.repeat_y = False
        self._lamp = self._gl.framebuffer(depth_attachment=self._depth)
        self._people = self._gl.program(shaders.VERTEX, shaders.FRAGMENT)
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
        figures = [_figure(p) for p, _ in people]
        buffers = [_Buffers(self, f, p) for f, (p, _) in zip(figures, people, strict=True)]
        eyes = float(np.mean([f.eyes for f in figures]))
        scene = self._gl.texture(backdrop.picture.shape[1::-1], 3, np.ascontiguousarray(backdrop.picture[::-1]).tobytes())
        wall = self._wall(eyes)
        pixels = np.empty((len(picked), *self.size, 3), np.uint8)
        mouths = np.empty((len(people), len(picked), 4), np.float32)
        try:
            for start in range(0, len(picked), BATCH):
                some = picked[start:start + BATCH]
                posed = [_stand(*pose(f, m, some), i, len(people)) for i, (f, (_, m)) in enumerate(zip(figures, people, strict=True))]
                for k, frame in enumerate(some):
                    view, lens = self._lens(camera.path[frame], eyes)
                    for i, (points, _) in enumerate(posed):
                        mouths[i, start + k] = mouth_box(points[k, figures[i].lips], lens @ view, self.size)
                    for buffer, (points, out) in zip(buffers, posed, strict=True):
                        buffer.write(points[k], out[k])
                    pixels[start + k] = self._draw(buffers, backdrop.light, view, lens, wall, scene, eyes)
        finally:
            for thing in (*buffers, scene, wall):
                thing.release()
        return Rendered(pixels, mouths)

    def _lens(self, path: Floats, eyes: float) -> tuple[Floats, Floats]:
        """View and projection of a frame, (4, 4) both."""
        azimuth, elevation, distance, x, z = (float(v) for v in path)
        target = np.array([x, -0.06, eyes - 0.03 + z])
        way = np.array([np.sin(azimuth) * np.cos(elevation), -np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
        return look(target + distance * way, target), projection(self.size)

    def _wall(self, eyes: float) -> Any:
        """The backdrop's corners."""
        (left, low), (right, high), away = BACKDROP
        corners = [[x, away, eyes + z, u, v] for x, z, u, v in
                   ((left, low, 0, 0), (right, low, 1, 0), (left, high, 0, 1), (right, high, 1, 1))]
        buffer = self._gl.buffer(np.array(corners, "f4").tobytes())
        return self._gl.vertex_array(self._back, [(buffer, "3f 2f", "place", "where")])

    def _draw(self, buffers: list[_Buffers], light: Light, view: Floats, lens: Floats, wall: Any, scene: Any, eyes: float) -> Pixels:
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
        for program in (self._people, self._back):
            program["view"].write(view.T.astype("f4").tobytes())
            program["lens"].write(lens.T.astype("f4").tobytes())
        scene.use(0)
        self._back["picture"].value = 0
        wall.render(gl.TRIANGLE_STRIP)
        self._people["lamp_view"].write(lamp.T.astype("f4").tobytes())
        self._depth.use(1)
        for name, value in (("shadow", 1), ("lamp_way", light.direction), ("lamp", light.lamp), ("room", light.room)):
            self._people[name].value = value
        for buffer in buffers:
            buffer.draw()
        return self._read()

    def _read(self) -> Pixels:
        """The target, averaged down."""
        s, (rows, columns) = self.supersample, self.size
        raw = np.frombuffer(self._target.read(components=3, alignment=1), np.uint8).reshape(rows, s, columns, s, 3)
        return np.asarray(raw.mean((1, 3), dtype=np.float32).round().astype(np.uint8)[::-1]) if s > 1 else raw.reshape(rows, columns, 3)[::-1]


class _Buffers:
    """One person on the GPU."""

    def __init__(self, renderer: Renderer, figure: Figure, person: Person) -> None:
        gl = renderer._gl
        self._program, self._gl = renderer._people, gl
        self._person = person
        self._moving = gl.buffer(reserve=len(figure.rest) * 24, dynamic=True)
        self._parts = [self._moving, gl.buffer(figure.still.tobytes())]
        layout = [(self._moving, "3f 3f", "place", "normal"), (self._parts[1], "3f 4f 2f", "canonical", "paint", "kind_shade")]
        self._solid = self._array(self._program, layout, figure.solid)
        self._hair = self._array(self._program, layout, figure.hair) if len(figure.hair) else None
        both = np.concatenate([figure.solid, figure.hair])
        self._lit = self._array(renderer._shadow, [(self._moving, "3f 12x", "place")], both)

    def _array(self, program: Any, layout: list[tuple[Any, ...]], triangles: NDArray[np.int64]) -> Any:
        index = self._gl.buffer(triangles.astype("i4").tobytes())
        self._parts.append(index)
        return self._gl.vertex_array(program, layout, index_buffer=index)

    def write(self, points: Floats, out: Floats) -> None:
        """Puts the mesh where it now is."""
        self._moving.write(np.concatenate([points, out], 1).astype("f4").tobytes())

    def shadow(self) -> None:
        """Draws into the lamp's map."""
        self._lit.render(self._gl.TRIANGLES)

    def draw(self) -> None:
        """Draws into the picture."""
        p, program = self._person, self._program
        for name, value in (("skin", p.skin), ("lips", p.lips), ("iris", p.iris), ("hair", p.hair), ("cloth0", p.colours[0]),
                            ("cloth1", p.colours[1]), ("eye", _landmark(LEFT_EYE)), ("mouth", _landmark(SKIN)), ("brows", p.brows),
                            ("stubble", p.stubble), ("pattern", float(PATTERNS.index(p.pattern))),
                            ("fluff", 0.0 if p.hair_style == "bald" else 0.55 if p.hair_style == "shaved" else 1.0),
                            ("shells", 1), ("depth", 0.0)):
            program[name].value = value
        self._solid.render(self._gl.TRIANGLES)
        if self._hair is not None:
            program["shells"].value, program["depth"].value = SHELLS, 0.007
            self._hair.render(self._gl.TRIANGLES, instances=SHELLS)

    def release(self) -> None:
        """Gives memory back."""
        for thing in (self._solid, self._hair, self._lit, *self._parts):
            if thing is not None:
                thing.release()


def _context() -> Any:
    """OpenGL 3.3 through EGL.

    Raises:
        NoGraphicsError: The package, the library or a driver is missing.
    """
    hint = "Install them: pip install 'infinidub[world]', and apt-get install libegl1 libgl1-mesa-dri"
    try:
        import moderngl

        return moderngl.create_context(standalone=True, backend="egl", require=330)
    except Exception as error:  # moderngl raises bare Exception when the library or a driver is missing
        raise NoGraphicsError(f"OpenGL cannot be opened through EGL ({error})", where="renderer", hint=hint) from error


@lru_cache(32)
def _assembled(seed: int, key: bytes, person: _Key) -> Figure:
    """See `_figure`."""
    del seed, key
    return assemble(person.person)


class _Key:
    """A person that does not take part in the cache's key."""

    def __init__(self, person: Person) -> None:
        self.person = person

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key)

    def __hash__(self) -> int:
        return 0


def _figure(person: Person) -> Figure:
    """The person's mesh, kept for the next call."""
    return _assembled(person.seed, person.identity.tobytes() + repr((person.hair_style, person.collar, person.sleeve)).encode(), _Key(person))


@lru_cache(4)
def _landmark(part: int) -> tuple[float, float, float]:
    """Middle of the left eye, or of the lips for SKIN, on the average body."""
    found = body()
    where = found.mean[found.of_part(part)] if part != SKIN else found.mean[found.marks[:, LIPS] > 0.4]
    x, y, z = (float(v) for v in where.mean(0))
    return x, y, z


def _check(people: Sequence[tuple[Person, Motion]], camera: Camera, frames: range) -> None:
    """Refuses what cannot be drawn.

    Raises:
        BadInputError: See `Renderer.render`.
    """
    if not people:
        raise BadInputError("nobody to draw", where="renderer", hint="Give at least one person")
    lengths = {len(camera.path), *(len(getattr(m, k)) for _, m in people for k in ("units", "head", "torso", "arms", "gaze"))}
    if len(lengths) > 1 or (frames and max(frames) >= min(lengths)):
        raise BadInputError(f"motions and camera of {sorted(lengths)} frames, asked for {frames}", where="renderer",
                            hint="Make them equally long")


def _stand(points: Floats, out: Floats, index: int, count: int) -> tuple[Floats, Floats]:
    """Moves one of several people to their place, turned a little to the middle."""
    if count == 1:
        return points, out
    side = index - (count - 1) / 2
    facing = turn(Z, np.array([-FACING * np.sign(side)], np.float32))[0]
    shift = np.array([side * SPACING, 0, 0], np.float32)
    return points @ facing.T + shift, out @ facing.T


def mouth_box(lips: Floats, matrix: Floats, size: tuple[int, int]) -> Floats:
    """Left, top, right, bottom in pixels around the lips (n, 3), with a margin, cut to the frame."""
    seen = np.concatenate([lips, np.ones((len(lips), 1), np.float32)], 1) @ matrix.T
    x = (seen[:, 0] / seen[:, 3] + 1) / 2 * size[1]
    y = (1 - seen[:, 1] / seen[:, 3]) / 2 * size[0]
    margin = MARGIN * max(np.ptp(x), np.ptp(y))
    box = np.array([x.min() - margin, y.min() - margin, x.max() + margin, y.max() + margin], np.float32)
    return np.clip(box, 0, [size[1], size[0]] * 2).astype(np.float32)


def look(eye: Floats, target: Floats) -> Floats:
    """View matrix (4, 4) of somebody at `eye` who looks at `target`, z up."""
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, Z)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(right, ahead), -ahead])
    view = np.eye(4)
    view[:3, :3], view[:3, 3] = axes, -axes @ eye
    return view.astype(np.float32)


def projection(size: tuple[int, int], near: float = 0.1, far: float = 20.0) -> Floats:
    """Perspective of the camera, (4, 4)."""
    t = 1 / np.tan(FIELD_OF_VIEW / 2)
    return np.array([[t * size[0] / size[1], 0, 0, 0], [0, t, 0, 0],
                     [0, 0, (far + near) / (near - far), 2 * far * near / (near - far)], [0, 0, -1, 0]], np.float32)


def lamp_view(light: Light, view: Floats, eyes: float, people: int) -> Floats:
    """What the lamp sees, without perspective, (4, 4): heads and chests."""
    way = view[:3, :3].T @ np.array(light.direction, np.float32)
    middle = np.array([0, -0.03, eyes - 0.22])
    matrix = look(middle + 2 * way / np.linalg.norm(way), middle)
    half = 0.40 + SPACING / 2 * (people - 1)
    scale = np.diag([1 / half, 1 / 0.52, -1 / 1.4, 1]).astype(np.float32)
    scale[2, 3] = -2 / 1.4
    return scale @ matrix
