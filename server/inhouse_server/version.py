"""The version of this code. Asking the installed metadata imports a mail parser, which an editor would wait for."""

VERSION = "0.1.0"
