"""The training step, and what happens around it: validation, calibration, resuming, pictures."""
