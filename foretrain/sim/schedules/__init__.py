"""Pipeline schedules: each emits the order of every stage."""
