"""Everything that reads or writes pixels."""
