"""Import of scans from files of any layout: a description, the presets that fill it in, and the conversion."""
