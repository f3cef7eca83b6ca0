"""Fakes of the ports, and the conformance suites that fakes and real adapters pass. Only tests import it."""
