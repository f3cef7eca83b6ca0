"""The story that `tide demo` tells: a good release, a bad one that goes back by itself, and the way back.

Hides a control plane of its own in a temporary folder, a small shop, and 200 users who never stop asking.
Everything that it claims was measured where it counts: at the users' end of the connection.

    story     the acts, one after the other          control   the control plane: started, stopped, cleaned up
    samples   what users saw, and what it adds up to traffic   the users
    report    the final table                        publish   the shop's releases, built and sent
    shop/     the sample app itself (examples/shop)  releases/ what changes in it from release to release

Neighbours: `cli` prints; `client` and `daemon` are used exactly as a user's commands use them.
"""
