"""Posting a review: the only part of `inhouse review` that knows the forge's token.

It runs in a process of its own, takes a small request on standard input, trusts none of it, and posts to the one pull
request that it was started for. ``request`` says what may be asked, ``inert`` what text may leave, ``memory`` what left
already.
"""
