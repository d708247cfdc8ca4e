"""Engine contract, model interface, physics operators and the registry of engines."""
