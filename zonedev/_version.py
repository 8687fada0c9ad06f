# SPDX-License-Identifier: LGPL-2.1-or-later
"""The version, in one place; setup and the program read it here."""

VERSION = "0.1.0"
