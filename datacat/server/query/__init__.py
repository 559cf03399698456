"""The query layer: what the pages, Grafana, the command line and curl ask of many sessions. table.py lists it all."""
