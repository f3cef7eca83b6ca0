"""The stories of `tide demo`: a good release, bad ones that go back by themselves, and the way back.

Hides a control plane of its own in a temporary folder, a small shop, and hundreds of users who never stop
asking. Everything that it claims was measured where it counts: at the users' end of the connection.

    story     the acts, one after the other          control   the control plane: started, stopped, cleaned up
    verdicts  the same for one bad release after     play      what both are played with
              the other (`--verdicts`)               traffic   the users
    samples   what users saw, and what it adds up to publish   the shop's releases, built and sent
    report    the table of both                      findings  the table of the bad releases…
    shop/     the sample app itself (examples/shop)  rivals    …beside what others would have needed
    releases/ what changes in it from release to release

Neighbours: `cli` prints; `client` and `launcher` are used exactly as a user's commands use them.
"""
