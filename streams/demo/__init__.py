"""The demo: Kafka, a worker and a live stream on this machine, watched from the outside as any consumer would."""
