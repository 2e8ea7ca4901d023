"""The ``mmar`` command: the commands of one site and those of a federation."""
