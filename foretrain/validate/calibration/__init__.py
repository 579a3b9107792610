"""From measurements to a profile: fits, held-out errors, reports."""
