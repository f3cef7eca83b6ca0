"""The HTTP API of the control plane. Knows the engine's operations, never the adapters."""
