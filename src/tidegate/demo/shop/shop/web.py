"""The shop that people see: one page, made from what `api` of the same release answers."""

from __future__ import annotations

import html
import json
import os
import urllib.request

from . import offer, serving

PAGE = """<!doctype html>
<title>The harbour shop</title>
<h1>The harbour shop</h1>
<p>{offer}</p>
<ul>
{products}
</ul>
<footer>web {web}, api {api}</footer>
"""


def home() -> serving.Answer:
    """The page; an apology when a service that it needs does not answer."""
    try:
        url = os.environ["API_URL"] + "/products"  # set by Tidegate, because web `needs: api`
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - http, as Tidegate sets it
            stock = json.load(answer)
        welcome = offer.today()
    except OSError as error:
        return serving.Answer(f"The shop is closed for a moment: {error}\n", status=503)
    lines = [f"<li>{html.escape(p['name'])}: {p['stock']} left</li>" for p in stock["products"]]
    page = PAGE.format(
        offer=html.escape(welcome),
        products="\n".join(lines),
        web=serving.RELEASE,
        api=stock["release"],
    )
    return serving.Answer(page, "text/html; charset=utf-8", headers=(("X-Api-Release", stock["release"]),))


if __name__ == "__main__":
    serving.serve({"/": home})
