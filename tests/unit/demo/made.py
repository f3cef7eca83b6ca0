"""Made-up samples, written as a story: who got what when."""

from __future__ import annotations

from tidegate.demo.samples import Failure, Sample


def sample(
    at_s: float,
    release: int | None,
    *,
    user: int = 1,
    failure: Failure | None = None,
    latency_s: float = 0.01,
    mixed: bool = False,
) -> Sample:
    """A request that was sent at `at_s`."""
    return Sample(
        user=user,
        sent_at_s=at_s,
        ended_at_s=at_s + latency_s,
        release=release,
        failure=failure,
        mixed=mixed,
    )


def story(answers: str, *, user: int = 1, begin_s: float = 0.0, step_s: float = 1.0) -> list[Sample]:
    """One user's requests, one letter each: a release's number, or `-` for a request that failed unsigned."""
    return [
        sample(
            begin_s + index * step_s,
            None if letter == "-" else int(letter),
            user=user,
            failure=Failure.SERVER_ERROR if letter == "-" else None,
        )
        for index, letter in enumerate(answers)
    ]
