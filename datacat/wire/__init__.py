"""The language that client, daemon and server share: pure, without clock or I/O."""
