"""Rows that a model writes about the repository, each held against the text that it was written from.

``sources`` cuts the training snapshot into sections, ``tasks`` says what is asked about them in the words of
``prompts``, a ``generator`` answers, ``cache`` keeps what it said, ``grounding`` drops what is not in the source, and
``rows`` makes conversations of the rest; ``raft`` with passages around them. ``absent`` asks about names that there are
not and ``lookup`` about what a program reads off the code: no model is needed for these.
"""
