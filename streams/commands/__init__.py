"""The commands of groundswell, one module each; a command parses options, calls other rooms and prints.

The procedures, also the checks of `doctor`, are in `streams/operations` (Kafka, states) and `streams/offline` (files).
"""
