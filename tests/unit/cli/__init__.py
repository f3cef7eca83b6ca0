"""What `tide` prints."""
