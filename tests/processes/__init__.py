"""Real processes, sockets and disks: what a simulation cannot show."""
