"""Services close to the machine: processes, devices, memory, files and arrays, YAML and JSON, and registries."""
