"""What is on offer today: what there is most of. Each page asks `api` twice more, one after the other."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any


def today() -> str:
    """One line for the page."""
    stock = {product["name"]: product["stock"] for product in _products()}
    most = max(stock, key=lambda name: stock[name])
    left = next(product["stock"] for product in _products() if product["name"] == most)
    return f"Welcome. There are {left} of our {most}."


def _products() -> list[dict[str, Any]]:
    url = os.environ["API_URL"] + "/products"
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - http, as Tidegate sets it
        found: list[dict[str, Any]] = json.load(answer)["products"]
    return found
