"""Reports as one HTML file: of a run, and of a comparison of runs."""
