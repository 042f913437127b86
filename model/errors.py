"""The errors of the model.

ModelError
├── ConfigError      a configuration that no network can be built from
├── ArtifactError    a folder that holds no usable artifact
├── TrainingError    data from which nothing can be learned
├── DeviceError      a device to compute on that is not there
└── SimulationError  settings from which no stream can be generated
"""


class ModelError(Exception):
    """Something about the model that the operator can act on."""


class ConfigError(ModelError):
    """The configuration is damaged, or of another schema."""


class ArtifactError(ModelError):
    """The artifact is missing, damaged, or its weights do not fit its configuration."""


class TrainingError(ModelError):
    """The data hold too little to train on."""


class DeviceError(ModelError):
    """The device to compute on is not there."""


class SimulationError(ModelError):
    """The settings of a simulation contradict each other."""
