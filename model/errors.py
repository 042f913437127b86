"""Errors of the model.

ModelError
├── ConfigError      a configuration that no network can be built from
├── ArtifactError    a folder without a usable artifact
├── TrainingError    data that are too small to train on
├── DeviceError      a device that does not exist
└── SimulationError  settings that no stream can be generated from
"""


class ModelError(Exception):
    """An error of the model that the operator can fix."""


class ConfigError(ModelError):
    """The configuration is damaged, or of another schema."""


class ArtifactError(ModelError):
    """The artifact is missing, damaged, or its weights do not fit its configuration."""


class TrainingError(ModelError):
    """The data are too small to train on."""


class DeviceError(ModelError):
    """The requested device does not exist."""


class SimulationError(ModelError):
    """The settings of a simulation contradict each other."""
