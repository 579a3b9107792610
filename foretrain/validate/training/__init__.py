"""The real torch parallel trainer: networks, layouts, steps, launching, faults."""
