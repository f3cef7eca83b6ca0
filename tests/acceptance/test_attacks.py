"""Attempts to get into production what has not passed, or is not what has: each refused, and written down.

One control plane, with r1 live everywhere and r2, whose own checks fail in staging, live in test. After each
attempt production answers with r1 as before, and the audit log says what was tried. Forged and replayed
webhooks: test_push and tests/unit/web/test_hooks.
"""

from __future__ import annotations

import io
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_pipeline import manifest
from tests.support import sample
from tests.support.tide import Done, Tide, wait_for
from tidegate import client, errors
from tidegate.artifacts import package
from tidegate.client import Json, Place

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.uncounted, pytest.mark.timeout(180)]

GATE: dict[str, Any] = {"production": {"approve": {"roles": ["approver"], "not_by_requester": True}}}
BROKEN = {"made": 2, "broken_in": ["staging"]}


class Target:
    """The shop that is attacked."""

    def __init__(self, tide: Tide) -> None:
        self.tide = tide
        self.app = tide.app("shop", **manifest())
        self.app.host = "shop.test"
        self.app.deploy()
        self.app.write(BROKEN, **manifest(**GATE))
        self.app.ok("deploy", "test")
        self.tokens = {
            name: tide.ok("token", "create", name, *words).out.strip()
            for name, words in {
                "viewer": ("--role", "viewer"),
                "deployer": ("--role", "deployer"),
                "tester": ("--role", "deployer", "--environment", "shop/test"),
                "approver": ("--role", "approver"),
            }.items()
        }

    def run(self, *words: object, token: str = "") -> Done:
        """A command, with a token if one is named."""
        if token:
            self.tide.environ["TIDEGATE_TOKEN"] = self.tokens.get(token, token)
        try:
            return self.app.run(*words)
        finally:
            self.tide.environ.pop("TIDEGATE_TOKEN", None)

    def audit(self) -> list[Json]:
        """What was refused or found, newest first."""
        with client.Client(self.tide.socket) as connection:
            return [row for row in connection.audit(limit=200) if row["outcome"] in ("refused", "found")]

    def write(self, statement: str, *values: object) -> None:
        """Edit a row of the database behind the control plane's back."""
        with closing(sqlite3.connect(self.tide.home / "state" / "tidegate.db", timeout=20)) as connection:
            changed = connection.execute(statement, values)
            assert changed.rowcount == 1, statement
            connection.commit()

    def read(self, statement: str, *values: object) -> Any:
        """The first column of the first row."""
        with closing(sqlite3.connect(self.tide.home / "state" / "tidegate.db", timeout=20)) as connection:
            return connection.execute(statement, values).fetchone()[0]

    def tree(self, release: int) -> Path:
        """The unpacked package of a release."""
        digest = self.app.ok("show", f"r{release}", "--json").json["release"]["digest"]
        found = [
            path
            for path in (self.tide.home / "packages").rglob("app.py")
            if digest.removeprefix("sha256:") in str(path)
        ]
        return found[0].parent

    def promotion(self, release: int) -> Json:
        """Of a release, when it has ended or waits for somebody."""

        def found() -> Json | None:
            with client.Client(self.tide.socket) as connection:
                shown = connection.pipeline("shop")
            for one in (*shown["promotions"], *shown["ended"]):
                if one["release"] == release and (one["ended"] or one["waits"] in ("approval", "freeze")):
                    return dict(one)
            return None

        promotion = wait_for(found, seconds=60)
        assert promotion is not None
        return promotion


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Tide()
    try:
        made.up()
        yield Target(made)
    finally:
        made.close()


@pytest.fixture(autouse=True)
def untouched(target: Target) -> Iterator[None]:
    """Whatever a test has tried: production serves r1, and the log has grown by what was tried."""
    before = {row["sequence"] for row in target.audit()}
    yield
    assert target.app.get().release == "r1"
    assert target.app.look()["live"] == 1
    entered = [rollout["release"] for rollout in target.app.history() if rollout["phase"] == "succeeded"]
    assert entered == [1]
    new = [row for row in target.audit() if row["sequence"] not in before]
    assert new, "nobody wrote it down"


# --- the front door --------------------------------------------------------------------------------


def test_unverified_release_is_sent_through_staging_and_stops_there(target: Target) -> None:
    """However it is asked for: production is entered through all that stand before it."""
    done = target.run("deploy", "production", "--release", "r2", "--supersede")
    assert done.status == 1
    assert "did not get to production" in done.err


def test_api_has_no_other_way_in(target: Target) -> None:
    """The route that the command uses is the only one, and it takes a promotion, not a rollout."""
    with client.Client(target.tide.socket) as connection:
        accepted = connection.act(Place("shop", "production"), "deploy", release=2, supersede=True)
        assert accepted["rollout"] is None
        for forged in ("admission", "grounds", "digest", "gate"):
            with pytest.raises(errors.TidegateError):
                connection.act(Place("shop", "production"), "deploy", release=2, **{forged: "yes"})
    assert target.promotion(2)["ended"] == "failed"


def test_same_digest_under_another_number_has_not_passed_either(target: Target) -> None:
    """A new manifest around the same package is a new release, and starts over."""
    target.app.write(BROKEN, **manifest(test={"config": {"X": "1"}}, **GATE))
    assert target.run("deploy").status == 1


def test_rebuilt_artifact_is_another_release(target: Target) -> None:
    """The same source with another byte: what r1 has passed does not count for it."""
    target.app.write({"made": 1.0000001, "broken_in": ["staging"]}, **manifest(**GATE))
    done = target.run("deploy")
    assert (done.status, "test → staging → production" in done.out) == (1, True)


def test_package_that_is_not_its_digest_is_not_taken(target: Target) -> None:
    """Other bytes under the name of those that passed."""
    passed = target.app.ok("show", "r1", "--json").json["release"]["digest"]
    other = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        sample.write_package(Path(folder) / "dist", {"made": "evil"})
        package.pack(Path(folder) / "dist", other)
    with client.Client(target.tide.socket) as connection, pytest.raises(errors.TidegateError) as refused:
        connection.upload([other.getvalue()], digest=passed)
    assert "sha256" in str(refused.value) or "digest" in str(refused.value)


# --- who asks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("viewer", ("deploy", "production", "--release", "r2")),
        ("tester", ("deploy", "production", "--release", "r2")),
        ("deployer", ("deploy", "production", "--release", "r2", "--emergency", "because I can do it")),
        ("deployer", ("approve", "production")),
        ("approver", ("deploy", "production", "--release", "r2", "--emergency", "because I can do it")),
        ("tide_" + "A" * 43, ("deploy", "production", "--release", "r2")),
    ],
)
def test_role_or_reach_that_is_too_small_is_refused(
    target: Target, token: str, words: tuple[str, ...]
) -> None:
    """Before anything is looked at."""
    done = target.run(*words, token=token)
    assert (done.status, "tide: " in done.err) == (2, True)


def test_revoked_token_is_refused(target: Target) -> None:
    """From the next request on."""
    token = target.tide.ok("token", "create", "gone", "--role", "deployer").out.strip()
    target.tide.ok("token", "revoke", "gone")
    done = target.run("deploy", "production", "--release", "r2", token=token)
    assert (done.status, "revoked" in done.err) == (2, True)


def test_name_that_somebody_else_has_is_not_believed(target: Target) -> None:
    """A token cannot speak for an approver."""
    with (
        client.Client(
            target.tide.socket, token=target.tokens["deployer"], on_behalf_of="approver"
        ) as connection,
        pytest.raises(errors.TidegateError),
    ):
        connection.act(Place("shop", "production"), "approve")


def test_who_asked_cannot_approve(target: Target) -> None:
    """Four eyes; nor can a role that the gate does not name."""
    target.app.write({"made": 40}, **manifest(**GATE))
    assert target.run("deploy", "staging", token="approver").status == 0
    newest = max(rollout["release"] for rollout in target.app.history("staging"))
    asked = target.run("deploy", "production", "--release", f"r{newest}", token="approver")
    assert "waits for 1 approval" in asked.out
    refused = target.run("approve", "production", token="approver")
    assert (refused.status, "somebody else's approval" in refused.err) == (2, True)
    target.app.ok("withdraw", "production")


# --- the store -------------------------------------------------------------------------------------


def test_changed_byte_in_the_store_is_found(target: Target) -> None:
    """At the gate: the package is not what was built, and the way to mend it is said."""
    target.app.write({"made": 50}, **manifest(**GATE))
    target.app.ok("deploy", "test")
    newest = max(rollout["release"] for rollout in target.app.history("test"))
    program = target.tree(newest) / "app.py"
    program.chmod(0o644)
    program.write_text(program.read_text().replace("I was told to die", "I was paid to die"))
    done = target.run("deploy", "staging", "--release", f"r{newest}")
    assert (done.status, "is not what was built" in done.err) == (2, True)
    assert target.run("verify", f"r{newest}").status == 1
    assert target.run("verify", f"r{newest}", "--repair").status == 0


def test_release_from_a_stranger_is_not_imported(target: Target) -> None:
    """Signed by a key that nobody here trusts."""
    other = Tide()
    try:
        other.up()
        stranger = other.app("shop", **manifest())
        stranger.ok("deploy", "test")
        stranger.ok("release", "export", "r1", str(target.tide.root / "stranger.tar"))
    finally:
        other.close()
    done = target.run("release", "import", str(target.tide.root / "stranger.tar"))
    assert done.status == 2


# --- the database ----------------------------------------------------------------------------------


def forged_pass(target: Target) -> None:
    """r1's pass of staging with r2's identity, digest and number."""
    with closing(sqlite3.connect(target.tide.home / "state" / "tidegate.db", timeout=20)) as connection:
        rows = [json.loads(row[0]) for row in connection.execute("select record from passes")]
        staging = next(row for row in rows if row["pass"]["environment"] == "staging")
        test = next(row for row in rows if row["pass"]["release"] == 2)
        for name in ("identity", "release", "digest"):
            staging["pass"][name] = test["pass"][name]
        connection.execute(
            "insert into passes (app, identity, record) values ('shop', ?, ?)",
            (staging["pass"]["identity"], json.dumps(staging)),
        )
        connection.commit()


def jumped_promotion(target: Target) -> None:
    """A promotion of r2 that says that it stands before production already."""
    assert target.run("deploy", "production", "--release", "r2").status == 1
    state = json.loads(target.read("select state from pipelines where app = 'shop'"))
    ended = [one for one in state["pipeline"]["ended"] if one["release"] == 2]
    stopped = max(ended, key=lambda one: one["id"])
    forged = {**stopped, "id": state["pipeline"]["next_id"], "environment": "production", "key": "forged"}
    forged |= {"ended": None, "waits": None, "approvals": []}
    forged |= {"rollout": None, "queued": False}
    state["pipeline"]["next_id"] += 1
    state["pipeline"]["promotions"] = [forged]
    target.write("update pipelines set state = ?, version = version + 1", json.dumps(state))


def rollout_of_r2(target: Target) -> str:
    """The record of the one that made it live in test."""
    found = target.read(
        "select record from rollouts where environment = 'test' "
        "and json_extract(record, '$.rollout.request.release') = 2"
    )
    return str(found)


def forged_request(target: Target) -> None:
    """r2's request of test, with test's own admission, as the next rollout of production."""
    record = json.loads(rollout_of_r2(target))
    state = json.loads(target.read("select state from environments where environment = 'production'"))
    mine = json.loads(target.read("select record from rollouts where environment = 'production' and id = 1"))
    taken = {name: record["rollout"]["request"][name] for name in ("release", "digest", "admission")}
    state["state"]["pending"] = {**mine["rollout"]["request"], **taken, "key": "forged"}
    target.write(
        "update environments set state = ?, version = version + 1 where environment = 'production'",
        json.dumps(state),
    )
    wait_for(lambda: len(target.app.history()) > 1 and not target.app.look()["rollout"], seconds=60)


def forged_history(target: Target) -> None:
    """A rollout of production that made r2 live, with the admission of test."""
    record = rollout_of_r2(target)
    with closing(sqlite3.connect(target.tide.home / "state" / "tidegate.db", timeout=20)) as connection:
        connection.execute(
            "insert into rollouts (app, environment, id, request_key, record, started_at, ended_at) "
            "values ('shop', 'production', 0, 'added', ?, 1, 2)",
            (record,),
        )
        connection.commit()


def test_pass_that_was_edited_counts_as_none(target: Target) -> None:
    """Its seal is of another release, and that is found."""
    forged_pass(target)
    assert target.run("deploy", "production", "--release", "r2").status == 1
    assert any("the pass of r2 in staging" in row["detail"] for row in target.audit())


def test_promotion_that_jumped_is_stopped_at_the_gate(target: Target) -> None:
    """Where it says that it stands is not what it has passed."""
    jumped_promotion(target)
    wait_for(lambda: "has not passed" in target.app.ok("pipeline").out)


def forged_approval(target: Target) -> int:
    """A good release that waits before production, and the approval of somebody who never gave it."""
    target.app.write({"made": 70}, **manifest(**GATE))
    assert "waits for 1 approval" in target.app.ok("deploy").out
    state = json.loads(target.read("select state from pipelines where app = 'shop'"))
    waiting = state["pipeline"]["promotions"][-1]
    given = {
        "environment": "production",
        "by": "approver",
        "role": "approver",
        "at": time.time(),
        "seal": "{}",
    }
    waiting["approvals"] = [given]
    target.write("update pipelines set state = ?, version = version + 1", json.dumps(state))
    return int(waiting["release"])


def test_approval_that_nobody_gave_opens_nothing(target: Target) -> None:
    """It is not signed: the release goes on waiting, and the approval is gone."""
    release = forged_approval(target)
    wait_for(lambda: any("the approval by approver" in row["detail"] for row in target.audit()))
    assert target.promotion(release)["approvals"] == []
    target.app.ok("withdraw", "production")


def test_rollout_without_an_admission_starts_nothing(target: Target) -> None:
    """An edited state may ask for instances; none of them starts."""
    forged_request(target)
    assert any(row["action"] == "start" for row in target.audit())
    assert next(rollout["phase"] for rollout in target.app.history()) == "aborted"


def test_history_that_was_added_leads_nowhere_back(target: Target) -> None:
    """A way back needs the admission of then, for this environment."""
    forged_history(target)
    try:
        done = target.run("rollback", "production", "--to", "r2")
        assert done.status == 2
        assert "admission of r2" in done.err
    finally:
        target.write("delete from rollouts where environment = 'production' and id = 0")


def test_release_whose_digest_was_edited_is_another_release(target: Target) -> None:
    """r1 with r2's digest: what r1 has passed is not for that, and nobody has signed it."""
    digest = target.read("select digest from releases where number = 1")
    target.write(
        "update releases set digest = (select digest from releases where number = 2) where number = 1"
    )
    try:
        assert target.run("deploy", "production", "--release", "r1").status != 0
    finally:
        target.write("update releases set digest = ? where number = 1", digest)


def test_audit_log_that_was_edited_names_the_row(target: Target) -> None:
    """Who covers the traces leaves one; the triggers against that go first, as an attacker would have it."""
    assert target.run("approve", "production").status == 2
    assert target.run("audit", "verify").status == 0
    with closing(sqlite3.connect(target.tide.home / "state" / "tidegate.db", timeout=20)) as connection:
        triggers = connection.execute(
            "select name, sql from sqlite_master where type = 'trigger' and tbl_name = 'audit'"
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"drop trigger {name}")
        sequence = connection.execute("select min(sequence) from audit where outcome = 'refused'").fetchone()
        connection.execute("update audit set outcome = 'accepted' where sequence = ?", sequence)
        connection.commit()
        done = target.run("audit", "verify")
        assert (done.status, str(sequence[0]) in done.out + done.err) == (1, True)
        connection.execute("update audit set outcome = 'refused' where sequence = ?", sequence)
        for _, statement in triggers:
            connection.execute(statement)
        connection.commit()
    assert target.run("audit", "verify").status == 0
