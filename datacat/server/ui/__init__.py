"""The web UI: pages made on the server from the same query layer that everybody else asks."""
