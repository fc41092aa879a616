"""Answers on a CPU with weights in 8 bits, computed by OpenVINO.

``graph`` puts the model together from the base's ``tensors`` and an adapter's, ``model`` runs it over blocks of keys
and values, ``versions`` keeps the models in memory, ``decoder`` does with them what the scheduler asks for, and
``engine`` puts all of it behind the protocol of every engine.

OpenVINO's package reports to its makers whenever it is imported, with an identity that it keeps in the home directory.
Code that is private and machines that have no network are what this product is for, so what reports is taken for
missing, which OpenVINO allows for. Import it only after this package.
"""

from __future__ import annotations

import sys
from typing import Any, cast

cast("dict[str, Any]", sys.modules)["openvino_telemetry"] = None
