"""The server: CherryPy lives here and nowhere else."""
