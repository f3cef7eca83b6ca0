"""Nothing starts but what is proved: admission, provenance and every byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.vault.made import DIGEST, ORIGIN, PRODUCTION, RELEASE, STAGING, MemoryRows
from tidegate import errors, ports
from tidegate.core import model, promotions
from tidegate.core.strategy import SWITCH
from tidegate.vault import admitting
from tidegate.vault.keys import Keys
from tidegate.vault.origins import SignedOrigins
from tidegate.vault.statements import Seals

GROUP = model.InstanceGroup(
    key=PRODUCTION,
    placement=3,
    service="web",
    release=RELEASE.number,
    digest=DIGEST,
    run=("./web",),
    serves=True,
    check=model.Check(kind=model.CheckKind.HTTP),
    instances=2,
    environment=(("API_URL", "http://127.0.0.1:21000"), ("LOG", "info"), ("TIDEGATE_URL", "http://x")),
    limits=model.Limits(),
    grace_s=1.0,
)
SPEC = model.EnvironmentSpec(
    services=(
        model.ServiceSpec(name="web", run=("./web",), serves=True, check=GROUP.check),
        model.ServiceSpec(name="api", run=("./api",), serves=True, check=GROUP.check),
    ),
    strategy=SWITCH,
    config=(("LOG", "info"),),
    verify=model.Verify(run=("./smoke",)),
)
CLAIMS: ports.Claims = {
    "app": "shop",
    "environment": "production",
    "release": RELEASE.number,
    "digest": DIGEST,
    "identity": "sha256:1",
    "may": promotions.admitted(SPEC),
    "grounds": "passed staging",
}


class Packages:
    """Packages that can be damaged."""

    def __init__(self) -> None:
        self.tree_is_damaged = self.archive_is_damaged = False
        self.repaired = 0

    def verify(self, digest: str) -> None:
        if self.tree_is_damaged:
            raise errors.StorageError(f"The package {digest} is not what was built: bin/web differs.")

    def repair(self, digest: str) -> None:
        if self.archive_is_damaged:
            raise errors.ArtifactError("Package refused: it is cut short.")
        self.tree_is_damaged = False
        self.repaired += 1

    def path(self, digest: str) -> Path:
        return Path("/packages") / digest


class Door:
    """What stands before the runtime, and what it has told."""

    def __init__(self, folder: Path) -> None:
        self.keys = Keys(folder / "keys")
        self.rows = MemoryRows()
        self.seals = Seals(self.keys, version="1")
        self.origins = SignedOrigins(self.rows, self.seals, now=lambda: 1.0)
        self.origins.sign(RELEASE, ORIGIN)
        self.packages = Packages()
        self.told: list[tuple[str, str]] = []
        checks = (
            admitting.with_admission(self.seals),
            admitting.with_provenance(self.origins.proved_of),
        )
        self.content = admitting.Admitting(
            self.packages, checks, found=lambda group, word, sentence: self.told.append((word, sentence))
        )

    def group(self, **claims: str | int) -> model.InstanceGroup:
        """A group with an admission, in which some claims are others."""
        return replace(GROUP, admission=self.seals.seal("admission", {**CLAIMS, **claims}))

    def refuses(self, group: model.InstanceGroup) -> str:
        with pytest.raises(errors.TidegateError) as refused:
            self.content(group)
        return str(refused.value)


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_group_is_given_its_package_when_all_is_proved(door: Door) -> None:
    """And nobody is told of anything."""
    assert door.content(door.group()) == Path("/packages") / DIGEST
    assert door.told == []


def test_nothing_starts_without_an_admission(door: Door) -> None:
    """There is no way in that leaves it out."""
    assert "r7 has no admission to shop/production: nothing starts without one." in door.refuses(GROUP)


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"environment": "staging"}, "is for environment staging"),
        ({"app": "blog"}, "is for app blog"),
        ({"release": 8}, "is for release 8"),
        ({"digest": f"sha256:{'e' * 64}"}, f"is for digest sha256:{'e' * 64}"),
    ],
    ids=["environment", "app", "release", "digest"],
)
def test_admission_for_something_else_is_refused(door: Door, claims: dict[str, str | int], said: str) -> None:
    """Of another environment, app, release or artifact, though we signed it ourselves."""
    refused = door.refuses(door.group(**claims))
    assert said in refused
    assert "Somebody changed the database" in refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": ("sh", "-c", "evil")}, "without the command of web that it would run now"),
        ({"service": "api"}, "without the command of api"),
        ({"service": "more"}, "without the command of more"),
        ({"check": model.Check(kind=model.CheckKind.COMMAND, command=("evil",))}, "the command of web"),
        ({"environment": (("LOG", "debug"),)}, "without the variable LOG as it is now"),
        ({"environment": (("LD_PRELOAD", "/tmp/evil.so"),)}, "without the variable LD_PRELOAD"),
        ({"environment": (("API_URL", "http://evil.example.com"),)}, "without the variable API_URL"),
    ],
    ids=["command", "service", "new-service", "check", "configuration", "new-variable", "address"],
)
def test_command_or_configuration_that_was_edited_in_the_state_is_refused(
    door: Door, changes: dict[str, Any], said: str
) -> None:
    """The same package with other words to start it is another program."""
    refused = door.refuses(replace(door.group(), **changes))
    assert "r7 was let into shop/production " in refused
    assert said in refused


def test_its_own_checks_are_admitted_with_a_release(door: Door) -> None:
    """The job that tries it runs under the same admission, with the command that stands in it."""
    alive = model.Check(kind=model.CheckKind.ALIVE)
    job = replace(door.group(), service=model.VERIFY_SERVICE, run=("./smoke",), check=alive)
    assert door.content(job).name == DIGEST
    assert "the command of _verify" in door.refuses(replace(job, run=("./other",)))


def test_pass_is_no_admission(door: Door) -> None:
    """What passed staging is not let into production by that alone."""
    assert "The statement is no admission" in door.refuses(
        replace(GROUP, admission=door.seals.seal("pass", CLAIMS))
    )


def test_admission_by_another_control_plane_is_refused_even_if_it_is_trusted(
    door: Door, tmp_path: Path
) -> None:
    """Who may say where something comes from may not say where it goes."""
    there = Keys(tmp_path / "there")
    door.keys.trust("there", there.own()[0].pem)
    foreign = Seals(there, version="1").seal("admission", CLAIMS)
    assert "no key that this control plane has" in door.refuses(replace(GROUP, admission=foreign))


def test_edited_admission_is_refused(door: Door) -> None:
    """A row of the state that somebody wrote by hand."""
    admission = door.group().admission
    edited = admission[:-10] + ("A" if admission[-10] != "A" else "B") + admission[-9:]
    assert door.refuses(replace(GROUP, admission=edited))


def test_release_of_an_unknown_origin_does_not_start(door: Door) -> None:
    """A release whose row was added by hand has no provenance."""
    door.rows.provenances.clear()
    assert "Nobody has signed where r7 of shop comes from." in door.refuses(door.group())


def test_provenance_of_another_release_does_not_help(door: Door) -> None:
    """Its digest is another one."""
    other = replace(RELEASE, number=8, digest=f"sha256:{'e' * 64}")
    door.origins.sign(other, ORIGIN)
    door.rows.provenances["shop", 7] = door.rows.provenances["shop", 8]
    assert "is that of another artifact" in door.refuses(door.group())


def test_release_row_with_another_digest_does_not_start(door: Door) -> None:
    """The digest of what runs is in both statements: whoever edits the release has neither."""
    digest = f"sha256:{'e' * 64}"
    assert "is for digest" in door.refuses(replace(door.group(), digest=digest))
    admitted = replace(door.group(digest=digest), digest=digest)
    assert "is that of another artifact" in door.refuses(admitted)


def test_release_of_a_key_that_is_trusted_no_more_does_not_start(door: Door, tmp_path: Path) -> None:
    """At its next start; and the sentence says that this may be meant."""
    there = Keys(tmp_path / "there")
    rows = MemoryRows()
    SignedOrigins(rows, Seals(there, version="1"), now=lambda: 1.0).sign(RELEASE, ORIGIN)
    door.rows.provenances = rows.provenances
    door.keys.trust("there", there.own()[0].pem)
    assert door.content(door.group()).name == DIGEST
    door.keys.distrust("there")
    assert "If you took away trust in a key, that is meant." in door.refuses(door.group())


def test_changed_package_is_put_aside_and_unpacked_again(door: Door) -> None:
    """What was changed is never run; it is told, and what was packed starts."""
    door.packages.tree_is_damaged = True
    assert door.content(door.group()).name == DIGEST
    ((word, sentence),) = door.told
    assert (word, door.packages.repaired) == ("repaired", 1)
    assert "bin/web differs. It was put aside and unpacked again." in sentence


def test_package_whose_archive_is_damaged_too_does_not_start(door: Door) -> None:
    """There is nothing left that has the digest."""
    door.packages.tree_is_damaged = door.packages.archive_is_damaged = True
    refused = door.refuses(door.group())
    assert "bin/web differs. Its archive is damaged too: Package refused: it is cut short." in refused
    assert [word for word, _ in door.told] == ["refused"]


def test_nothing_is_unpacked_for_what_may_not_run(door: Door) -> None:
    """Statements first: they cost nothing."""
    door.packages.tree_is_damaged = True
    door.refuses(GROUP)
    assert door.packages.repaired == 0


def test_refusal_is_told_once_until_the_group_starts(door: Door) -> None:
    """The loop asks again every second; the audit log shall not fill with it."""
    for _ in range(3):
        door.refuses(GROUP)
    door.refuses(replace(GROUP, service="api"))
    assert [sentence.split()[0] for _, sentence in door.told] == [
        "shop.production.3.web",
        "shop.production.3.api",
    ]
    door.content(door.group())
    door.refuses(GROUP)
    assert len(door.told) == 3


def test_admission_is_of_its_environment_alone(door: Door) -> None:
    """Staging's admission lets the same release into staging."""
    here = replace(door.group(environment="staging"), key=STAGING)
    assert door.content(here).name == DIGEST
