"""The daemon, one for each app: reads its journals, judges hangs and ends, ships everything to the server."""
