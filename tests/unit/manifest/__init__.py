"""Tests of tidegate.yaml: what is read, what is refused, and in which words."""
