"""The app that the bench deploys: `web.py`, copied into a package; two releases differ by one file."""
