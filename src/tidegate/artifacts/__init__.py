"""Artifacts: what is built once and then runs, unchanged, in every environment.

Hides how a folder becomes bytes with a name, and how those bytes become a folder again that can be
trusted. Modules, from the rules down to the disk:

- `members`: what may be in a package, and how big it may be (pure)
- `archive`: the one way in which a package is written, and a reader that accepts nothing else
- `transport`: zstd in and out, with a budget against bombs
- `disk`: folders through file descriptors; which error means what
- `folder`: a folder on disk, member by member
- `package`: `pack`, from a folder to an archive with a digest
- `unpack`: from a hostile archive to a read-only tree
- `content`: `ContentStore`, the packages on this machine, by digest
- `builder`: runs the user's own build command

Neighbours: the daemon builds and adds; runtimes start instances from `ContentStore.path`.
"""
