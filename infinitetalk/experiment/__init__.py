"""The paper's experiments on conditioning, repeated on a small generator: InfiniteTalk, arXiv 2508.14033, 3.2 to 3.4.

    arms.py          what is compared: the weights that are forked from one base, and the ways to run them
    conditioning.py  one piece of the experiment: fork, train, dub, measure; everything is kept and nothing done twice
    bench.py         one dub of one pair, and its figures
    claims.py        what the paper says of each, and whether it is repeated
    paper.py         the paper's Table 3
    report.py        Markdown and JSON; plots.py: the pictures in it

Whatever is measured here is measured on people who are rendered, and is no score on HDTF, CelebV-HQ or EMTD.
"""
