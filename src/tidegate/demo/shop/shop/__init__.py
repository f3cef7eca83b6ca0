"""A shop in two services, `web` and `api`, to try a deployment with. Python 3.8 or newer, nothing else."""
