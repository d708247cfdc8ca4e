"""Devices, threads, memory and progress."""
