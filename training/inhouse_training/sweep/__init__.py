"""Many short runs of one recipe: which rank, alpha, learning rate, batch and mix of data are best by the gate's score.

``space`` says what is tried, ``study`` remembers it (Optuna, in SQLite), ``yardstick`` holds the changes that score a
trial, ``leg`` trains and scores a trial in a child process, ``trials`` runs those on every GPU, ``job`` is the whole
from the cut to the best recipe, and ``report`` says what came of it. Nothing here imports torch or Optuna before it is
needed.
"""
