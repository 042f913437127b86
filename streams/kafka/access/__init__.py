"""Access to Kafka: the first connection, rights, errors of the consumer group, advertised addresses."""
