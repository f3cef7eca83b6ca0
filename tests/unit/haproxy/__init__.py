"""What HAProxy reads and answers, without HAProxy."""
