"""OpenStack Nova's instance-launch flow, small enough to read and real enough to use."""

__version__ = "0.1.0"
