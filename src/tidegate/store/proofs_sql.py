"""Statements on proofs of migrations. Neighbours: `proofs` executes them, `sql` has the step."""

from typing import Final

STEP: Final = (
    """
    create table migration_proofs (
        up_sha text not null,
        down_sha text not null,
        fp_before text not null,
        proof text not null,
        primary key (up_sha, down_sha, fp_before)
    ) strict, without rowid
    """,
)
ALL: Final = "select proof from migration_proofs order by up_sha, down_sha, fp_before"
KEEP: Final = """
    insert into migration_proofs (up_sha, down_sha, fp_before, proof)
    values (:up_sha, :down_sha, :fp_before, :proof)
    on conflict (up_sha, down_sha, fp_before) do update set proof = excluded.proof
"""
