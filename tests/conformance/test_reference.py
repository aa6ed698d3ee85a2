"""The reference backend, held to the kit."""

from llmtrace.reference.plugin import ReferenceBackend
from llmtrace.testing import BackendConformance


class TestReference(BackendConformance):
    backend = ReferenceBackend
