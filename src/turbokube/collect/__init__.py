"""What explains a run that went wrong: objects, events and logs, of bounded size, into the run's bundle."""
