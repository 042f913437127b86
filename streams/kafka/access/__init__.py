"""Being let in: the first connection, rights, refusals of the group, advertised addresses."""
