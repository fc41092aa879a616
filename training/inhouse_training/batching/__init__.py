"""Several answers at once: one forward pass reads pieces of several conversations.

``scheduler`` decides what is read and written next, and asks for it in the terms of ``steps``; ``pool`` says where keys
and values lie. ``decoder`` runs the model, ``attention`` lets each token see its own conversation only, ``adapters``
lets each token pass through its own adapter. ``engine`` puts all of it behind the protocol of every engine. The engine
in 8 bits has the scheduler and the pool in common with it.
"""
