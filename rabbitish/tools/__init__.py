"""Commands beside the broker, for when it does not run; they print what store/ finds."""
