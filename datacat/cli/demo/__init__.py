"""The demo: six real programs that end in six ways, recorded by a real server."""
