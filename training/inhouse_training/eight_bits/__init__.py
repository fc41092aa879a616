"""Answers on a CPU with weights in 8 bits, computed by OpenVINO.

OpenVINO's package reports to its makers whenever it is imported, with an identity that it keeps in the home directory.
Code that is private and machines that have no network are what this product is for, so what reports is taken for
missing, which OpenVINO allows for. Import it only after this package.
"""

from __future__ import annotations

import sys
from typing import Any, cast

cast("dict[str, Any]", sys.modules)["openvino_telemetry"] = None
