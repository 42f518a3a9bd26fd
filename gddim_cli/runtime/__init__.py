"""What a run needs of the machine: processes, whole files, arrays on disk, memory, versions, background writing."""
