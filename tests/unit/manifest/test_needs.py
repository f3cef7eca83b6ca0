"""Needs of other apps, as they stand in a file."""

from __future__ import annotations

import pytest

from tests.unit.manifest.support import mistakes
from tidegate import manifest

TEXT = """
app: shop
artifact: {package: .}
services:
  api: {run: ./api}
  web: {run: ./web, needs: NEEDS, route: shop.test}
"""


def test_own_and_foreign_needs_are_told_apart() -> None:
    """Own ones order the services of the app; those of other apps are kept sorted."""
    found = manifest.parse(TEXT.replace("NEEDS", "[mail/queue, api, accounts/api]"))
    (environment,) = (spec for _, spec in found.environments)
    web = environment.service("web")
    assert web is not None
    assert (web.needs, web.foreign) == (("api",), ("accounts/api", "mail/queue"))
    assert [service.name for service in environment.services] == ["api", "web"]


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ("shop/api", "shop/api is a service of this app"),
        ("[accounts/api, accounts/api]", "names accounts/api twice"),
        (
            "Accounts/api",
            "should be the name of a service, or app/service of another app, not 'Accounts/api'",
        ),
        ("accounts/", "should be the name of a service, or app/service of another app, not 'accounts/'"),
        ("a/b/c", "should be the name of a service, or app/service of another app, not 'a/b/c'"),
    ],
)
def test_mistakes_in_needs_of_other_apps(needs: str, said: str) -> None:
    """Each is told with its place."""
    (mistake,) = mistakes(TEXT.replace("NEEDS", needs))
    assert said in mistake
    assert "services.web.needs" in mistake


def test_variables_of_addresses_are_taken() -> None:
    """In config and among secrets."""
    text = TEXT.replace("NEEDS", "accounts/api")
    for section in ("config: {ACCOUNTS_API_URL: x}", "secrets: [ACCOUNTS_API_URL]"):
        (mistake,) = mistakes(f"{text}environments:\n  production:\n    {section}\n")
        assert "ACCOUNTS_API_URL is set by Tidegate: it is the address of accounts/api" in mistake
