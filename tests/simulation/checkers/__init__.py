"""What must never happen: one class per family of invariants (reliability.md 2.4), asked at every event.

A checker sees the truth (what runs, what is routed, what is committed), never the core's own view of it.
What excuses a violation is written in the checker that grants it. `universe` makes them.
"""
