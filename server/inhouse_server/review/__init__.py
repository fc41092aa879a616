"""Pull request review: a change -> findings -> proven suggestions -> renderers.

Nothing here talks to a forge: what a forge takes is rendered, and posting it is another process's work.
"""
