"""datacat, a flight recorder for applications: the public face."""

__version__ = "0.1.0"
