"""What records of events cost."""
