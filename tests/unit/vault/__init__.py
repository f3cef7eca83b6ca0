"""Tests of what needs a key."""
