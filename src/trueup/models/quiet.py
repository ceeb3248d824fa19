"""What the libraries print that no user can act on."""

from __future__ import annotations

import logging

ADVICE = "Failed to load CPU gemm_4bit_forward"


def drop_kernel_advice() -> None:
    """Drop one message of bitsandbytes, and no other: on CPUs with AVX512-BF16 its import asks for another package.

    Call this before bitsandbytes is imported.
    """
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    if _is_no_advice not in logger.filters:
        logger.addFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(ADVICE)
