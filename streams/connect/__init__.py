"""Sources other than Groundswell's own events: mappings of their records, and the process that reads them live."""
