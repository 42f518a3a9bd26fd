"""The machine: processes, atomic files, arrays on disk, memory, versions, background writing, registries of named things."""
