"""Which versions of its secrets a rollout is given."""

from __future__ import annotations

import pytest

from tidegate import errors, ports
from tidegate.core.model import EnvironmentKey, SecretUse, SecretVersion
from tidegate.engine import pinning

KEY = EnvironmentKey(app="shop", environment="production")
SET = (SecretVersion(name="OTHER", version=9), SecretVersion(name="TOKEN", version=3))


def test_deploy_is_given_the_newest_of_what_it_uses() -> None:
    """No more than that, and as a file where the release wants one."""
    uses = (SecretUse(name="TOKEN", as_file=True),)
    assert pinning.newest(KEY, uses, SET) == (SecretVersion(name="TOKEN", version=3, as_file=True),)
    assert pinning.newest(KEY, (), SET) == ()


def test_deploy_without_a_value_names_all_that_is_missing_and_what_sets_it() -> None:
    """One refusal, not one for each."""
    uses = tuple(SecretUse(name=name) for name in ("A", "B", "C", "TOKEN"))
    with pytest.raises(errors.RefusedError) as refused:
        pinning.newest(KEY, uses, SET)
    assert refused.value.message == ("shop/production has no value for A, B and C, which the release needs.")
    assert refused.value.reason == "secret-not-set"
    assert "`tide secret set production A`, `tide secret set production B`" in str(refused.value)


def test_rollback_is_given_what_the_release_had() -> None:
    """The version of then, though there is a newer one."""
    pinned = (SecretVersion(name="TOKEN", version=2, as_file=True),)
    kept = tuple(ports.SecretRecord(name="TOKEN", version=version, at=0.0) for version in (1, 2, 3))
    assert pinning.of_then(KEY, 5, pinned, kept) == pinned


def test_rollback_to_what_was_removed_is_refused_with_another_way() -> None:
    """Never with another value in its place."""
    pinned = (SecretVersion(name="TOKEN", version=2),)
    kept = (ports.SecretRecord(name="TOKEN", version=3, at=0.0),)
    with pytest.raises(errors.RefusedError) as refused:
        pinning.of_then(KEY, 5, pinned, kept)
    assert refused.value.message == (
        "r5 ran in shop/production with versions of TOKEN that were removed since."
    )
    assert refused.value.hint == ("`tide deploy production --release r5` brings it with the values of today.")
