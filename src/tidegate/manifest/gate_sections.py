"""Keys of the gates before an environment: checks, approvals, freezes, secrets.

A part of the definition, with the same rules. Neighbours: `definition` says where these sections stand,
`gate_values` what one value means, `gates` the rules between them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema, model_validator

from tidegate.manifest import gate_values, scalars
from tidegate.manifest.reading import Scalar, shortened
from tidegate.manifest.section import Section, key


class SmokeSection(Section):
    """One request to the new release. Short form: `/cart` is `{path: /cart}`."""

    path: scalars.HttpPath = key("The path that is asked, once.", "/cart")
    service: scalars.Name | None = key(
        "The service that is asked. Not written: the first with a route here, else the first with a port.",
        "web",
        default=None,
    )
    status: gate_values.Status | None = key(
        "The only status that passes. Not written: any 2xx or 3xx; redirects are not followed.",
        "404",
        default=None,
    )


def _widened_smoke(value: Any) -> Any:
    return {"path": value} if isinstance(value, Scalar) and not value.empty else value


Smoke = Annotated[
    SmokeSection, BeforeValidator(_widened_smoke, json_schema_input_type=scalars.HttpPath | SmokeSection)
]


class VerifySection(Section):
    """How a release is tried when all its instances are ready, before the first user sees it.

    It stands in an environment, and at the top of the file for all of them; the environment's replaces it.
    Short forms: `verify: ./bin/smoke` is `verify: {run: ./bin/smoke}`; `verify: off`: nothing is tried here.
    A release that fails goes back without a user having seen it, and does not enter the next environment.
    """

    run: scalars.Command | None = key(
        "Command in the package, with the environment's configuration and secrets; exit status 0 passes. "
        "`TIDEGATE_URL` and `<SERVICE>_URL` of each service lead to the new release alone.",
        "./bin/smoke",
        default=None,
    )
    smoke: tuple[Smoke, ...] = key(
        "Paths that are asked before the command runs, in this order.",
        "[/healthz, {path: /cart, service: web, status: 200}]",
        default=[],
        max_length=gate_values.SMOKES_MAX,
    )
    timeout: scalars.CheckTime = key("For all of it; longer has failed.", "2m", default="10m")

    @model_validator(mode="after")
    def _something_to_try(self) -> VerifySection:
        if self.run is None and not self.smoke:
            raise scalars.Mistake("should have run, smoke or both", "for example run: ./bin/smoke")
        return self


def _widened_verify(value: Any) -> Any:
    """`off` is a section that is not there, though it was written."""
    if not isinstance(value, Scalar | list) or (isinstance(value, Scalar) and value.empty):
        return value
    if isinstance(value, Scalar) and value.text in ("off", "false", "on", "true"):
        if value.text in ("off", "false"):
            return None
        raise scalars.Mistake("should say what to try", "for example verify: ./bin/smoke")
    return {"run": value}


_NoVerify = Annotated[str, WithJsonSchema({"enum": ["off", False]})]
Verify = Annotated[
    VerifySection | None,
    BeforeValidator(_widened_verify, json_schema_input_type=_NoVerify | scalars.Command | VerifySection),
]


class ApproveSection(Section):
    """Who must agree before a release may enter. Short form: `approve: manual`, one approval of anybody's."""

    count: gate_values.Approvers = key("How many different people.", "2", default=1)
    roles: gate_values.Roles = key(
        "Role, or a list of them, whose approval counts: `approver`, `admin`. Not written: of whoever may "
        "approve at all.",
        "admin",
        "[approver, admin]",
        default=[],
    )
    expires: gate_values.Expiry = key(
        "An approval that was not used for so long counts no more: what was agreed to on Monday is not what "
        "is deployed weeks later.",
        "12h",
        default="7d",
    )
    not_by_requester: scalars.Flag = key(
        "Whether who asked for the release cannot approve it, too.", "true", default=False
    )


def _widened_approve(value: Any) -> Any:
    if (
        isinstance(value, dict)
        or not isinstance(value, Scalar | list)
        or (isinstance(value, Scalar) and value.empty)
    ):
        return value
    wanted = "manual, or keys such as count: below it"
    if isinstance(value, list):
        raise scalars.Mistake(f"should be {wanted}, not a list")
    if value.text != "manual":
        raise scalars.not_this(wanted, value.text, "leave it out if nobody is to be asked")
    return {}


_ShortApprove = Annotated[str, WithJsonSchema({"enum": ["manual"]})]
Approve = Annotated[
    ApproveSection, BeforeValidator(_widened_approve, json_schema_input_type=_ShortApprove | ApproveSection)
]


class FreezeSection(Section):
    """A window in which nothing new enters; rollbacks always may. In each week, or once.

    `from` and `until` are by the clock on the wall in `zone`: `fri 16:00`, each week, or `2026-12-20 16:00`,
    once. Without a time: the beginning of that day. A window of the week may go over the week's end. Where
    the clock is changed the window is the longer one.
    """

    from_: gate_values.MomentOfFreeze = key("When it begins.", "fri 16:00", "2026-12-20 16:00", alias="from")
    until: gate_values.MomentOfFreeze = key("When it ends.", "mon 08:00", "2027-01-02 08:00")
    zone: gate_values.Zone = key(
        "Time zone of the two, a name of the IANA database. It has no default: a window by the wrong clock "
        "leaves hours open that nobody expects to be.",
        "Europe/Berlin",
        "UTC",
    )
    why: gate_values.Remark = key("Shown to whoever waits.", "nobody is here at the weekend", default="")


def _widened_secrets(value: Any) -> Any:
    """`[A, B: file]` is `{A: variable, B: file}`."""
    if isinstance(value, dict) or not isinstance(value, Scalar | list):
        return value
    if isinstance(value, Scalar) and value.empty:
        return {}
    wanted = "the name of a variable such as DATABASE_URL, or a list of them"
    found: dict[str, Any] = {}
    for item in value if isinstance(value, list) else [value]:
        named = item if isinstance(item, dict) else {scalars.text_of(item, wanted): "variable"}
        for name, form in named.items():
            if name in found:
                raise scalars.Mistake(f"names {shortened(name)} twice")
            found[name] = form
    return found


Secrets = Annotated[
    dict[scalars.Variable, gate_values.SecretForm],
    BeforeValidator(
        _widened_secrets,
        json_schema_input_type=gate_values.SecretNames | dict[scalars.Variable, gate_values.SecretForm],
    ),
]
