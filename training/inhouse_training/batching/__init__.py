"""Several answers at once: one forward pass reads pieces of several conversations.

``scheduler`` decides what is read and written next, ``decoder`` runs the model, ``attention`` lets each token see its
own conversation only, ``pool`` says where keys and values lie, ``adapters`` lets each token pass through its own
adapter. ``engine`` puts all of it behind the protocol of every engine.
"""
