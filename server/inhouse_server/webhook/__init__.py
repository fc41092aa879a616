"""Webhooks: a forge tells that a pull request was opened or pushed to, and it gets its review.

Two processes with a queue on disk between them. The receiver reads what comes from outside and has no token of the
forge; the worker has the token, and gets nothing from outside but numbers and commit ids.
"""
