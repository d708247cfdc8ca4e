"""Simulation of scans: objects, probes, positions and photon counts."""
