"""The run's record on disk: `runs/<run>/bundle.sqlite` and `run.json`, one writer, any number of readers."""
