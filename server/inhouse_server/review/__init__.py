"""Pull request review: a change -> findings -> proven suggestions -> renderers.

Only ``posting`` talks to a forge, in a process of its own, which reads no change and runs no model.
"""
