"""The token ids of English Chatterbox, by stock's names. Knows no model."""

START_TEXT, STOP_TEXT = 255, 0  # around every text
TEXT_TOKENS = {"[STOP]": STOP_TEXT, "[UNK]": 1, "[SPACE]": 2, "[START]": START_TEXT}  # ids that the tokenizer must have
TEXT_VOCABULARY = 704
START_SPEECH, STOP_SPEECH = 6561, 6562  # before and behind the speech of every utterance
SPEECH_TOKENS = 6561  # lower ids are speech; this id and higher ones are marks such as start and stop
