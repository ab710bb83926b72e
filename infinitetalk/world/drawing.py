"""One person on the GPU: buffers, and the programs that read them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infinitetalk.world.body import LEFT_EYE, LIPS, SKIN, body
from infinitetalk.world.figure import Figure
from infinitetalk.world.person import PATTERNS
from infinitetalk.world.scene import Floats, Person

SHELLS = 4
"""Times that hair is drawn, one within the other, so that its edge is soft."""


class Drawing:
    """One person on the GPU."""

    def __init__(self, gl: Any, programs: dict[str, Any], lamp: Any, figure: Figure, person: Person) -> None:
        """Puts there what does not move.

        Args:
            gl: The OpenGL context.
            programs: One for each name in `Figure.drawn`.
            lamp: The one that draws what the lamp sees.
            figure: The person's mesh.
            person: Who it is.
        """
        self._programs, self._gl, self._person = programs, gl, person
        self._moving = gl.buffer(reserve=len(figure.rest) * 24, dynamic=True)
        still = gl.buffer(figure.still.tobytes())
        layout = [(self._moving, "3f 3f", "place", "normal"), (still, "3f 4f 2f", "canonical", "paint_", "kind_shade")]
        self._parts: list[Any] = [self._moving, still]
        self._drawn = {name: self._array(self._programs[name], layout, t) for name, t in figure.drawn.items() if len(t)}
        whole = np.concatenate(list(figure.drawn.values()))
        self._lit = self._array(lamp, [(self._moving, "3f 12x", "place")], whole)

    def _array(self, program: Any, layout: list[tuple[Any, ...]], triangles: NDArray[np.int64]) -> Any:
        index = self._gl.buffer(triangles.astype("i4").tobytes())
        used = [(buffer, *_read_by(program, kinds, names)) for buffer, kinds, *names in layout]
        array = self._gl.vertex_array(program, [u for u in used if len(u) > 2], index_buffer=index)
        self._parts += [index, array]
        return array

    def write(self, points: Floats, out: Floats) -> None:
        """Puts the mesh where it now is."""
        self._moving.write(np.concatenate([points, out], 1).astype("f4").tobytes())

    def shadow(self) -> None:
        """Draws into the lamp's map."""
        self._lit.render(self._gl.TRIANGLES)

    def draw(self) -> None:
        """Draws into the picture."""
        looks = _looks(self._person)
        for name, array in self._drawn.items():
            layers = SHELLS if name == "hair" else 1
            depth = 0.007 if name == "hair" else 0.0
            set_all(self._programs[name], {**looks, "shells": layers, "depth": depth})
            culled = name == "skin"
            if culled:
                self._gl.enable(self._gl.CULL_FACE)
            array.render(self._gl.TRIANGLES, instances=layers)
            if culled:
                self._gl.disable(self._gl.CULL_FACE)

    def release(self) -> None:
        """Gives memory back."""
        for thing in reversed(self._parts):
            thing.release()


def _read_by(program: Any, kinds: str, names: list[str]) -> tuple[str, ...]:
    """Layout of a buffer for a program that may not read all of it."""
    words = [k if n in program else f"{int(k[0]) * 4}x" for k, n in zip(kinds.split(), names, strict=False)]
    words += kinds.split()[len(names):]
    return (" ".join(words), *(n for n in names if n in program))


def set_all(program: Any, values: dict[str, Any]) -> None:
    """Sets those uniforms that a program has."""
    for name, value in values.items():
        if name in program:
            program[name].value = value


def _looks(p: Person) -> dict[str, Any]:
    """A person's uniforms."""
    return {"skin": p.skin, "lips": p.lips, "iris": p.iris, "hair": p.hair,
            "cloth0": p.colours[0], "cloth1": p.colours[1], "brows": p.brows, "stubble": p.stubble,
            "pattern": float(PATTERNS.index(p.pattern)),
            "fluff": {"bald": 0.0, "shaved": 0.55}.get(p.hair_style, 1.0),
            "eye": _landmark(LEFT_EYE), "mouth": _landmark(SKIN)}


@lru_cache(4)
def _landmark(part: int) -> tuple[float, float, float]:
    """Middle of the left eye, or of the lips for SKIN, on the average body."""
    found = body()
    where = found.mean[found.of_part(part)] if part != SKIN else found.mean[found.marks[:, LIPS] > 0.4]
    x, y, z = (float(v) for v in where.mean(0))
    return x, y, z
