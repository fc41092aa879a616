"""A small repository with real code and history, for the tests of the server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

GIT_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
}

BILLING = '''"""Billing."""


def charge_customer(customer: str, pennies: int) -> str:
    """Charge a customer and return the receipt number."""
    return f"{customer}-{pennies}"
'''

SHIPPING = '''"""Shipping."""


def book_courier(parcel: str) -> str:
    """Book a courier for a parcel; couriers come at noon."""
    return f"courier for {parcel}"
'''


def git(folder: Path, *arguments: str) -> str:
    """Run git in ``folder`` with a fixed author."""
    environment = {**os.environ, **GIT_ENVIRONMENT}
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def make_repository(root: Path) -> Path:
    """A repository with two modules and one commit."""
    root.mkdir(parents=True)
    git(root, "init", "--quiet", "--initial-branch=main")
    (root / "billing.py").write_text(BILLING)
    (root / "shipping.py").write_text(SHIPPING)
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "Bill and ship")
    return root


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own for each test module."""
    return make_repository(tmp_path_factory.mktemp("shop") / "shop")
