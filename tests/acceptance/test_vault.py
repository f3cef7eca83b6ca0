"""Secrets that nobody sees but the app, and releases that prove where they come from or do not start."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import sample
from tests.support.tide import COMMAND_LIMIT_S, App, Done, Tide
from tidegate import client
from tidegate.client import Json

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(240)]

FIRST, SECOND = "canary-4f2a91c7d0-first", "canary-77b3e5a01c-second"


@pytest.fixture
def other() -> Iterator[Tide]:
    """Another control plane, of somebody else."""
    made = Tide()
    try:
        made.up()
        yield made
    finally:
        made.close()


def manifest(secrets: list[Any] | None = None, **production: Any) -> dict[str, Any]:
    """One service in one environment, by a switch."""
    environment = {"strategy": "switch", "keep_warm": "1s", **production}
    return {
        "services": {"web": sample.service("web", route="shop.test")},
        "environments": {"production": environment | ({"secrets": secrets} if secrets else {})},
    }


def shop(tide: Tide, secrets: list[Any] | None = None, **production: Any) -> App:
    app = tide.app("shop", **manifest(secrets, **production))
    app.host = "shop.test"
    return app


def fed(app: App, text: str, *words: object) -> Done:
    """A command that reads this from its standard input."""
    done = subprocess.run(
        app.tide.arguments(*words),
        cwd=app.folder,
        env=os.environ | app.tide.environ,
        input=text,
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def set_secret(app: App, name: str, value: str, environment: str = "production") -> Json:
    done = fed(app, f"{value}\n", "secret", "set", environment, name, "--json")
    assert done.status == 0, done
    found: Json = done.json
    return found


def given(app: App) -> Any:
    """What the live release has as its TOKEN."""
    return app.get("/env").json.get("TOKEN")


def edited(tide: Tide, statement: str, *values: object) -> None:
    """A row of the state, changed by hand."""
    with closing(sqlite3.connect(tide.home / "state" / "tidegate.db", timeout=10)) as database, database:
        database.execute(statement, values)


# --- secrets ---------------------------------------------------------------------------------------


def test_secret_reaches_the_app_by_a_rollout_and_a_rollback_brings_the_old_one(tide: Tide) -> None:
    """Refused while it is not set; a new value waits for its rollout; going back is going back with it."""
    app = shop(tide, ["TOKEN"])
    refused = app.run("deploy", "production")
    assert refused.status == 2
    assert "shop/production has no value for TOKEN" in refused.err
    assert "tide secret set production TOKEN" in refused.err

    assert set_secret(app, "TOKEN", FIRST) == {
        "name": "TOKEN",
        "version": 1,
        "outdated": [],
        "redacted": True,
    }
    app.deploy()
    assert given(app) == FIRST

    said = fed(app, SECOND, "secret", "set", "production", "TOKEN").out
    assert "TOKEN is set in production, version 2." in said
    live = app.look()["live"]
    assert f"r{live} (live) goes on with version 1 of TOKEN." in said
    assert f"`tide deploy production --release r{live}` rolls the change out." in said
    assert given(app) == FIRST

    app.ok("deploy", "production", "--release", f"r{live}")
    assert given(app) == SECOND
    app.deploy()
    assert given(app) == SECOND

    set_secret(app, "TOKEN", FIRST)
    app.deploy()
    assert given(app) == FIRST
    app.ok("rollback", "production")
    assert given(app) == SECOND

    (listed,) = app.ok("secret", "list", "production", "--json").json
    assert [version["version"] for version in listed["versions"]] == [1, 2, 3]
    assert {(user["role"], user["version"]) for user in listed["users"]} >= {("live", 2)}
    app.ok("secret", "rm", "production", "TOKEN")
    gone = app.run("rollback", "production")
    assert gone.status == 2
    assert "with versions of TOKEN that were removed since" in gone.err


def everything_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()


def command_lines() -> bytes:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return b"\n".join(found)


def test_value_is_found_nowhere_but_in_the_app(tide: Tide) -> None:
    """Not in the state, logs, files, command lines or answers, though the app prints it and fails with it."""
    app = shop(tide, ["TOKEN"])
    done = fed(app, FIRST, "secret", "set", "production", "TOKEN")
    app.deploy()
    assert given(app) == FIRST
    app.get(f"/say/{FIRST}")
    shown = [done, app.ok("logs", "production"), app.ok("logs", "production", "--json")]
    assert "***" in shown[1].out
    assert "***" in shown[2].out
    broken = sample.service("web", route="shop.test", run="sh -c 'env; exit 3'")
    app.write(services={"web": broken})
    failed = app.run("deploy", "production")
    assert failed.status == 1
    assert "***" in failed.out + failed.err
    shown += [failed, fed(app, f"{FIRST}\0", "secret", "set", "production", "TOKEN")]
    shown += [
        app.run(*words, "--json")
        for words in (
            ("status", "production"),
            ("history", "production"),
            ("events", "production"),
            ("secret", "list", "production"),
            ("config", "diff", "production", "production"),
            ("audit",),
            ("show", "r1"),
            ("verify", "r1"),
            ("backup", "--file", str(tide.root / "copy.db")),
        )
    ]
    assert FIRST not in "".join(one.out + one.err for one in shown)
    assert FIRST.encode() not in command_lines()
    # What an app writes to its own output is the app's: Tidegate keeps the file, and cleans what it reads.
    outputs = ("instances", "logs")
    found = [
        path
        for path, content in everything_below(tide.home)
        if FIRST.encode() in content and path.relative_to(tide.home).parts[0] not in outputs
    ]
    assert found == []


def test_environments_share_no_value_and_the_difference_is_shown(tide: Tide) -> None:
    """What is set in staging is not set in production, and nobody sees a value in the comparison."""
    app = tide.app(
        "shop",
        services={"web": sample.service("web", route="shop.test")},
        environments={
            "staging": {
                "secrets": ["TOKEN"],
                "config": {"LOG": "debug", "SAME": "x"},
                "services": {"web": {"route": "staging.shop.test"}},
            },
            "production": {"secrets": ["TOKEN", "PAY"], "config": {"LOG": "info", "SAME": "x", "ZONE": "b"}},
        },
    )
    set_secret(app, "TOKEN", FIRST, "staging")
    app.host = "staging.shop.test"
    app.ok("deploy", "staging")
    assert given(app) == FIRST
    found = app.ok("config", "diff", "staging", "production", "--json").json["differences"]
    assert found == [
        {"name": "LOG", "secret": False, "left": "debug", "right": "info"},
        {"name": "PAY", "secret": True, "left": None, "right": "secret, not set"},
        {"name": "TOKEN", "secret": True, "left": "secret", "right": "secret, not set"},
        {"name": "ZONE", "secret": False, "left": None, "right": "b"},
    ]
    assert "debug" in app.ok("config", "diff", "staging", "production").out
    assert "configured alike" in app.ok("config", "diff", "staging", "staging").out


def test_new_key_changes_no_value_and_a_restart_neither(tide: Tide) -> None:
    """After a rotation the same values are given, and after a restart they are still hidden."""
    app = shop(tide, ["TOKEN"])
    set_secret(app, "TOKEN", FIRST)
    assert "1 values of production" in app.ok("secret", "rotate", "production").out
    tide.ok("down")
    tide.up()
    app.deploy()
    assert given(app) == FIRST
    app.get(f"/say/{FIRST}")
    said = app.ok("logs", "production").out
    assert FIRST not in said
    assert "***" in said


# --- proofs ----------------------------------------------------------------------------------------


def test_release_is_proved_and_a_changed_byte_is_found_and_repaired(tide: Tide) -> None:
    """Each point with a tick; one that is wrong makes the exit status 1, and says what to do."""
    app = shop(tide)
    app.deploy()
    proved = app.ok("verify", "r1").out
    for point in ("archive", "files", "provenance", "manifest", "admission to production"):
        assert f"✓ {point}" in proved
    (tree,) = (tide.home / "packages").glob("*/tree")
    program = tree / "app.py"
    program.chmod(0o644)
    program.write_text(program.read_text() + "# evil\n")
    wrong = app.run("verify", "r1")
    assert wrong.status == 1
    assert "✗ files" in wrong.out
    assert "✓ archive" in wrong.out
    assert "app.py" in wrong.out
    assert app.run("verify", "r1", "--json").json["ok"] is False
    assert "✓ files" in app.ok("verify", "r1", "--repair").out
    assert "# evil" not in (tree / "app.py").read_text()


def test_release_travels_to_where_its_key_is_trusted(tide: Tide, other: Tide) -> None:
    """One file; refused by who does not know the key, run by who does, and not again when trust is gone."""
    app = shop(tide)
    app.deploy()
    file = tide.root / "r1.release"
    app.ok("release", "export", "r1", str(file))
    assert app.run("release", "export", "r1", str(file)).status == 2
    there = shop(other)
    refused = there.run("release", "import", str(file))
    assert refused.status == 2
    assert "The release is not taken in" in refused.err
    pem = app.ok("key", "show").out
    fed(there, pem, "key", "trust", "headquarters", "-")
    taken = there.ok("release", "import", str(file), "--json").json
    assert taken["digest"] == app.ok("show", "r1", "--json").json["release"]["digest"]
    there.ok("deploy", "production", "--release", f"r{taken['number']}")
    assert there.get().release == "r1"
    assert "signed by headquarters, whom you trust" in there.ok("verify", "r1").out

    content = bytearray(file.read_bytes())
    content[-2000] ^= 1
    file.write_bytes(content)
    assert there.run("release", "import", str(file)).status == 2

    there.ok("key", "distrust", "headquarters")
    assert there.run("verify", "r1").status == 1
    exported = there.run("release", "export", "r1", str(other.root / "again"))
    assert exported.status == 1
    assert "If you took away trust in a key" in exported.err


def refused_at_the_gate(app: App, release: int) -> str:
    """Deploy a release that must not enter; what is said, and what the audit log says of it."""
    done = app.run("deploy", "production", "--release", f"r{release}", "--no-wait")
    assert done.status == 2
    assert not app.pids(release)
    entries = app.ok("audit", "--json").json
    assert any((e["outcome"], e["release"]) == ("refused", release) for e in entries)
    return done.err


def test_release_with_an_edited_row_does_not_start_and_stands_in_the_audit_log(tide: Tide) -> None:
    """Whether its provenance is taken away, exchanged or edited: nothing of it runs."""
    app = shop(tide)
    app.open()
    for _ in range(3):
        app.write({"made": os.urandom(4).hex()})
        app.ok("deploy", "production", "--no-wait")
        app.wait_ended()
    app.ok("deploy", "production", "--release", "r1")
    edited(tide, "delete from provenances where number = 2")
    edited(
        tide,
        "update provenances set envelope = (select envelope from provenances where number = 1) "
        "where number = 3",
    )
    edited(tide, "update provenances set envelope = replace(envelope, 'A', 'B') where number = 4")
    said = [refused_at_the_gate(app, release) for release in (2, 3, 4)]
    assert "Nobody has signed where r2 of shop comes from." in said[0]
    assert "The provenance of r3 of shop is that of another artifact" in said[1]
    assert "Where r4 of shop comes from is not proved." in said[2]
    assert app.get().release == "r1"
    with client.Client(tide.socket) as connection:
        assert connection.verify_audit()["ok"]
