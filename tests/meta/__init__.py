"""Tests of the repository itself: the house style, the locks, the contracts and the ratchets."""
