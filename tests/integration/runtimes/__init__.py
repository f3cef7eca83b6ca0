"""The process runtime on real processes."""
