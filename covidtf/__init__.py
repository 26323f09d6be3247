"""Reproduce, question and extend COVID-19 imaging papers. Research software, not a medical device."""

import os

# Read by TensorFlow's C++ runtime at load time, so they must be set before anything imports Keras.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"
