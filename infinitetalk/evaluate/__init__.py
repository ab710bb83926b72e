"""How good a dubbed picture is: pure functions on arrays, one file a family of metrics.

With ground truth, on the synthetic world or on any video beside its source (a star marks the project's own):

    mouth.py       Sync-C*: does the mouth in the pixels move with the track that drove it
    picture.py     drift of colours, jumps where chunks join, frames that are the reference
    motion.py      head motion that was copied from the source, camera that is not the source's
    identity.py    CSIM, CSIM*, FaceSIM: is it the same face

As the papers measure, on what a network sees (the network is plugged in; `public.py` tells which are there):

    frechet.py     FID and FVD; inception.py, i3d.py: the published networks
    syncnet.py     Sync-C and Sync-D; tracks.py: the faces they are taken of; syncnet_network.py, s3fd.py: the networks
    arcface.py     what CSIM is taken of

Around them: `own.py` (extractors that need no weights, named as the project's own), `faces.py` (finders), `loading.py`
(weights), `long_form.py` (windows of ten seconds), `bootstrap.py` (intervals), `clips.py` (files), `sets.py` (figures
over many videos), `report.py` (everything of one video, and of many).

Figures on synthetic people, or of the project's own extractors, are no scores on HDTF, CelebV-HQ or EMTD.
"""
