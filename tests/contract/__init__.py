"""The conformance suites of the ports, over the fakes and over each real adapter."""
