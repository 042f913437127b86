"""Sources other than the input topics: mappings of their records, and the process that reads them live."""
