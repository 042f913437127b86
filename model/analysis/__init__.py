"""Analysis of whole graphs: arrays in, arrays out; no Kafka, no disk, no ids."""
