"""A synthetic world: rendered people who speak, in front of backgrounds, with the truth of every frame known.

    scene.py       the nouns: person, motion, camera, backdrop, clip and its truth
    body.py        the baked body (BODY.md): identity, face units and pose → vertices, normals
    person.py      seed → a person: shape, skin, eyes, hair, clothes
    hair.py, clothes.py, mesh.py, figure.py         a person → one mesh, and that mesh moved
    background.py  seed → a backdrop and its light
    renderer.py    people, camera and backdrop → pixels and mouth boxes (OpenGL through EGL; no display, no GPU needed)
    drawing.py, shaders.py, view.py                 what the renderer uses
"""
