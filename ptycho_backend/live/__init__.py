"""Live view of a run in a browser: record of its progress, state of its folder, server on loopback."""
