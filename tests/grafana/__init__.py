"""Proof that the files for Grafana work: every query of them through what Grafana and its plugin do with it."""
