"""Model cards, the native file format, and the conversion of released formats."""
