"""Prediction beside measurement: verdicts, overlays, and where a real trace parts from a predicted one."""
