"""Where commits come from: git, the forges' webhooks and their status reports.

Hides git and every forge. What arrives here was written by strangers: names of refs, answers of servers, the
bodies of requests; nothing of it reaches a shell, a terminal or a path unchecked.

refs          which names of branches and tags are taken, and which are meant (pure)
remotes       addresses of repositories that are watched (pure)
forges        webhooks: signature first, then what they say (pure)
git           runs git so that no configuration, name or server can make it do something else
repositories  the bare repository of each app, with its hooks
checkouts     clean folders with exactly one commit, and no more
output        what builds print: bounded, without control characters, followable
processes     ends what a build has left running
keys          secrets of webhooks, two valid at once
arrivals      from pushes, webhooks and polling to rows of the queue
watching      the thread that looks at remotes
statuses      tells forges how a commit fared
"""
