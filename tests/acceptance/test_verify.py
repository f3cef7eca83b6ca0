"""A release is tried over the real router before anybody sees it: its paths, and what it is given."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(120)]

#: Tells what it was given, without telling the secret.
CHECK = (
    "import os; path = os.environ['TOKEN_FILE']; "
    "print('token of', len(open(path).read()), 'letters', oct(os.stat(path).st_mode & 0o777), flush=True)"
)
TOKEN = "canary-of-a-token"


def manifest(*smoke: Any) -> dict[str, Any]:
    return {
        "services": {
            "api": sample.service("api"),
            "web": sample.service("web", route="shop.test", needs="api"),
        },
        "environments": {
            "production": {
                "strategy": "switch",
                "keep_warm": "1s",
                "secrets": [{"TOKEN": "file"}],
                "verify": {"smoke": list(smoke), "run": [sample.PYTHON, "-c", CHECK]},
            }
        },
    }


@pytest.fixture
def shop(tide: Tide) -> App:
    app = tide.app("shop", **manifest("/both", {"path": "/nothing", "service": "api", "status": 404}))
    app.host = "shop.test"
    arguments = tide.arguments("secret", "set", "production", "TOKEN")
    subprocess.run(arguments, cwd=app.folder, input=f"{TOKEN}\n", text=True, check=True, timeout=30)
    return app


def test_paths_are_asked_of_the_new_release_and_secrets_are_files(shop: App) -> None:
    """Each over the router, before the command, which reads its secret; what they print is kept."""
    shop.deploy()
    (path,) = wait_for(lambda: list(shop.tide.home.glob("logs/shop.production.*._verify/0.log")))
    text = path.read_text()
    lines = [line.split(" in ")[0] for line in text.splitlines()]
    assert lines == [
        "tidegate: smoke GET /both 200",
        "tidegate: smoke GET /nothing 404",
        f"token of {len(TOKEN)} letters 0o400",
        "tidegate: ended: exit status 0",
    ]


def test_path_that_fails_ends_the_rollout_before_anybody_sees_it(shop: App) -> None:
    """The refusal names the path and both statuses; users stay where they are."""
    shop.deploy()
    broken = shop.refused_deploy(fail_share=1.0)
    assert broken.status == 1
    assert "GET /both answered 500 instead of 2xx or 3xx" in broken.err
    assert "No user had been exposed." in broken.err
    assert shop.get().release == "r1"
