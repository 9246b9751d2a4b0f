"""Holds the logger that every part of medgan writes to; the command line chooses its file."""

import logging

LOG = logging.getLogger("medgan")
