"""S3Gen's streams of the counter-based random generator, one for each purpose. Knows nothing of how they are drawn.

Streams below 2^31 are the steps of T3's sampler.
"""

FLOW, PHASES, SOURCE = range(2**31, 2**31 + 3)  # the flow's noise; phases and noise of the vocoder's source
