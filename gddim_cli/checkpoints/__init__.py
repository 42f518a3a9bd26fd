"""Model cards, the native file format, and converters from the formats of other programs."""
