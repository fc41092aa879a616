"""What else a company wrote down: exported chat, tickets and mail, one small reader each.

Every reader gives :class:`Thread`\\ s, one at a time, redacted, with people as roles (``member 1``) and their mail
addresses left out. What it cannot read it gives as a :class:`SkippedFile`, with its place and reason.
"""

from inhouse_retrieval.export_paths import ExportPaths
from inhouse_retrieval.exports.chat import read_chat
from inhouse_retrieval.exports.mail import read_mail
from inhouse_retrieval.exports.sources import exports_digest, read_exports
from inhouse_retrieval.exports.thread import Post, Thread, thread_until
from inhouse_retrieval.exports.tickets import read_tickets

__all__ = [
    "ExportPaths",
    "Post",
    "Thread",
    "exports_digest",
    "read_chat",
    "read_exports",
    "read_mail",
    "read_tickets",
    "thread_until",
]
