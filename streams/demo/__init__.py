"""The demo: Kafka, a worker and a live stream on this machine, read through the topics and the web port."""
