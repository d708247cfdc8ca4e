"""The engine contract and the registry of installed engines."""
