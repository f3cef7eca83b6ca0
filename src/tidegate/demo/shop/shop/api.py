"""The service behind the shop: what there is and how much of it, as JSON."""

from __future__ import annotations

import json

from . import serving

STOCK = {"barometer": 4, "lantern": 12, "tide table": 31}


def products() -> serving.Answer:
    """Every product with its stock."""
    found = [{"name": name, "stock": stock} for name, stock in STOCK.items()]
    return serving.Answer(json.dumps({"products": found, "release": serving.RELEASE}), "application/json")


if __name__ == "__main__":
    serving.serve({"/products": products})
