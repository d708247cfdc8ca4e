"""What PtychoPINN's users bring along: its model archives and its configurations (spec: model_file 7, config 10)."""
