"""Import this before the rest of transformers, which then leaves out scikit-learn and SciPy.

Transformers imports both, and pandas with them, wherever they are installed: for text generation with a second model as
an assistant, for metrics, and for the losses of object detection. None of these is used here. They take a quarter of
the processor time until a model can be loaded, each time that a process starts.
"""

from __future__ import annotations

from transformers import utils


def _missing() -> bool:
    return False


utils.is_sklearn_available = utils.is_scipy_available = _missing
