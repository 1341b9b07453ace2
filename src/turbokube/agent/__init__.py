"""The run's one process: load, measure and bundle together, steered over a 0600 socket."""
