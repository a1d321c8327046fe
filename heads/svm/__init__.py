"""Linear support vector machines on video vectors."""
