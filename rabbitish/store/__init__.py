"""What survives: changes of the core as records in a journal on disk, and back again at the next start."""
