"""Conversion of PtychoPINN's model archives and configurations (spec: model_file 7, config 10)."""
