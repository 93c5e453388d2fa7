"""What S3Gen draws random numbers for: a stream each, of the counter-based generator. Knows nothing of how.

Streams below 2^31 are the steps of T3's sampler.
"""

FLOW, PHASES, SOURCE = range(2**31, 2**31 + 3)  # the flow's noise; phases and noise of the vocoder's source
