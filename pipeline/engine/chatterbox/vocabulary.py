"""The token ids of English Chatterbox, by the names that stock gives them. Knows no model."""

START_TEXT, STOP_TEXT = 255, 0  # around every text
TEXT_TOKENS = {"[STOP]": STOP_TEXT, "[UNK]": 1, "[SPACE]": 2, "[START]": START_TEXT}  # ids the model counts on
TEXT_VOCABULARY = 704
SPEECH_TOKENS = 6561  # ids below are speech; ids from here on are marks such as start and stop
