"""What tests share, by subject; none of it is a test."""
