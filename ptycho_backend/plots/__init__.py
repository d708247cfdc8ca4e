"""Pictures of objects, probes, losses and assessments."""
