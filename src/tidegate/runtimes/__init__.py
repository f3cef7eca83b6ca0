"""Runtimes: what carries out `apply`, `observe` and `remove` for groups of instances.

Hides how instances are started and watched: here as local processes (`process`). Each runtime keeps the
contract of `ports.Runtime` and knows nothing of the others.
"""
