"""Traffic: HAProxy 2.8 as the router, and everything that keeps it running."""

from tidegate.haproxy.runtime import HAProxyRouter
from tidegate.haproxy.settings import RouterSettings

__all__ = ["HAProxyRouter", "RouterSettings"]
