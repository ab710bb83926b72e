"""A synthetic world: rendered people who speak, in front of backgrounds, with the truth of every frame known.

    scene.py       the nouns: person, motion, camera, backdrop, clip and its truth
    body.py        the baked body (BODY.md): identity, face units and pose → vertices, normals
    person.py      seed → a person: shape, skin, eyes, hair, clothes
    background.py  seed → a backdrop and its light
    renderer.py    people, camera and backdrop → pixels and mouth boxes (OpenGL through EGL; no display, no GPU needed)
"""
